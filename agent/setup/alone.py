"""One setup at a time: two would each take what the other has begun for what was there before."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from replug.agent.setup.plan import SetupError


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Until the end, others who call this with the same folder get SetupError; OSError.

    Nothing is left behind, whatever ends this process.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupError(
                "another replug setup is at work; nothing was changed: try again when it has ended"
            ) from None
        yield
    finally:
        os.close(descriptor)
