"""Whether two paths name one file, by statx(2): it asks no file system, of which some never answer."""

from __future__ import annotations

import ctypes
import os

_AT_FDCWD = -100
_AT_STATX_DONT_SYNC = 0x4000
_STATX_INO = 0x100
_INODE, _DEVICE = slice(32, 40), slice(136, 144)
"""Where struct statx has the number of the file, and its file system's."""

_statx = getattr(ctypes.CDLL(None), "statx", None)  # musl before 1.2.5 and glibc before 2.28 have none


def same_file(one: str, other: str) -> bool:
    """Whether both are there, and are the same file of the same file system; False if that cannot be told."""
    identity = _identity(one)
    return identity is not None and identity == _identity(other)


def _identity(path: str) -> tuple[bytes, bytes] | None:
    found = (ctypes.c_char * 256)()
    if _statx is None or _statx(_AT_FDCWD, os.fsencode(path), _AT_STATX_DONT_SYNC, _STATX_INO, found) != 0:
        return None
    return found.raw[_INODE], found.raw[_DEVICE]
