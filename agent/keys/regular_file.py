"""Reading files that anybody may have put there, without hanging on a FIFO or filling the memory."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TypeAlias

FileState: TypeAlias = tuple[int, int, int, int, int]
"""What changes when a file is written or replaced."""

_MEBIBYTE = 1024 * 1024


class NoPlainFileError(OSError):
    """It is no regular file, or a longer one than is read."""


def file_state(path: str) -> FileState:
    """Return the file's state now; OSError, ValueError."""
    status = os.stat(path)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def read_regular_file(path: str, largest: int) -> bytes:
    """Return the contents; ValueError for anything but a file of at most `largest` bytes, OSError."""
    # Opening a FIFO may block for ever, and opening a device may have an effect.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("not a regular file")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("not a regular file")
        contents = file.read(largest + 1)
    if len(contents) > largest:
        raise ValueError(f"larger than {largest} bytes")
    return contents


def contents_of(path: Path, largest: int = _MEBIBYTE) -> bytes:
    """As `read_regular_file`, for programs that say what fails: OSError, with the path."""
    try:
        return read_regular_file(os.fspath(path), largest)
    except ValueError as error:
        raise NoPlainFileError(errno.EINVAL, str(error), os.fspath(path)) from error


def lines_of(path: Path) -> list[str]:
    """The lines of a text file of at most a mebibyte; OSError."""
    return contents_of(path).decode(errors="replace").splitlines()
