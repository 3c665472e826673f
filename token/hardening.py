"""Keeps other processes of the same user from reading the memory of the agent and its workers."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


def refuse_tracing() -> None:
    """Let no process of the same user attach to this one or read its memory (prctl(2)).

    Holds until the process executes another program. Raises OSError if the kernel declines.
    """
    _set_dumpable(0)


def permit_tracing() -> None:
    """Undo `refuse_tracing`, for a process that is about to become another program."""
    _set_dumpable(1)


def readable_through_user_namespace() -> bool:
    """Whether all this is undone by a user namespace for this user alone (user_namespaces(7)).

    It belongs to the user, whose processes may then read the memory of those in it. PrivateUsers= in a unit
    of the user's own manager makes such a namespace.
    """
    with open("/proc/self/uid_map", encoding="ascii") as file:
        _, outside, count = file.readline().split()
    return (int(outside), int(count)) == (os.getuid(), 1)


def tells_users_apart() -> bool:
    """Whether the kernel reports every user by a number of their own (user_namespaces(7)).

    In a user namespace, as PrivateUsers= makes one, all that it does not have are one user, 65534.
    """
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() == ["0", "0", str(2**32 - 1)]


def refuse_core_dumps() -> None:
    """Set RLIMIT_CORE to 0, for this process and all its children. Raises OSError."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Have the kernel send this process a signal when the process `parent` that forked it ends.

    Raises OSError, also when that has ended already.
    """
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        # It ended before we asked.
        raise ProcessLookupError(f"process {parent} is gone")


def _set_dumpable(value: int) -> None:
    _prctl(_PR_SET_DUMPABLE, value)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
