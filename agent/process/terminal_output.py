"""Standard error that is a terminal: a process of its own writes there.

Whoever writes to a terminal is stopped after `stty tostop` if it is in the background, and waits in the
kernel for as long as any program of the user likes that has the terminal open. That must not be the agent.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from replug.token.worker.forkserver import close_all_but

_ERRORS = 2
_MOST = 4096  # bytes at a time


def terminal_writer() -> int | None:
    """A pipe's end to write to instead of standard error, if that is a terminal. OSError.

    Its process ends with the pipe.
    """
    errors = os.fstat(_ERRORS)
    if not stat.S_ISCHR(errors.st_mode) or errors.st_rdev == os.stat(os.devnull).st_rdev:
        return None
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            # Where it is not the controlling terminal, nobody is stopped for writing there.
            os.setsid()
            os.chdir("/")
            close_all_but(read)
            _pass_on(read)
        finally:
            os._exit(0)
    os.close(read)
    return write


def _pass_on(source: int) -> None:
    while data := os.read(source, _MOST):
        with suppress(OSError):  # it was closed
            while data:
                data = data[os.write(_ERRORS, data) :]
