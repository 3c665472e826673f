"""Runs a command where nobody may make a user namespace, as in many containers and on hardened machines.

Started as root, as `python -I no_user_namespaces.py COMMAND...`: with a seccomp filter, which is inherited.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_CLONE_NEWUSER = 0x10000000
# Of each machine: the numbers of clone, unshare and clone3, whose arguments a filter cannot see.
_CALLS = {"x86_64": (56, 272, 435), "aarch64": (220, 97, 435)}
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_NUMBER, _FIRST_ARGUMENT = 0, 16  # offsets in struct seccomp_data


def main() -> None:
    """Installs the filter and becomes the command."""
    clone, unshare, clone3 = _CALLS[platform.machine()]
    program = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (_LOAD, 0, 0, _NUMBER),
            (_EQUAL, 5, 0, clone3),
            (_EQUAL, 1, 0, clone),
            (_EQUAL, 0, 2, unshare),
            (_LOAD, 0, 0, _FIRST_ARGUMENT),
            (_ANY_BIT, 2, 0, _CLONE_NEWUSER),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _FAIL | _ENOSYS),
            (_RETURN, 0, 0, _FAIL | _EPERM),
        )
    )
    code = ctypes.create_string_buffer(program)
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0) != 0:
        sys.exit(f"no filter of system calls: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
