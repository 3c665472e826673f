"""Writes files for others to read, into folders that others may write to."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, contents: bytes, mode: int = 0o644) -> None:
    """Replace the file at once, so that nobody reads half of it; OSError."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.new")
    unfinished.unlink(missing_ok=True)
    # Who else may write there can put a link in its place, to any file of ours: it is not followed.
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(contents)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
