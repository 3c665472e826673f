"""Detaches the agent's process from the one that started it."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from replug.token.hardening import permit_tracing

_PR_SET_NAME = 15
_ARG_START, _ARG_END = 48, 49  # fields of proc_pid_stat(5): where the kernel has the command line
_STATE = 3  # the first one behind the name, which may have blanks in it
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1)
"""The signals that the agent handles."""


def show_name(name: bytes, arguments: Sequence[bytes]) -> None:
    """Have ps(1) and pidof(8) show this program and its arguments, not the Python that runs it."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name, 0, 0, 0)
    with suppress(OSError), open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
        begin, end = (int(fields[number - _STATE]) for number in (_ARG_START, _ARG_END))
        line = b"\0".join([name, *arguments]).ljust(end - begin, b"\0")
        if len(line) == end - begin:
            ctypes.memmove(begin, line, len(line))


def open_standard_streams() -> None:
    """Open closed standard streams on /dev/null, so that the socket never gets the number of stderr."""
    for fd, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None:  # closed when Python started; what was imported since may have taken its number
            null = os.open(os.devnull, os.O_RDWR)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def detach() -> None:
    """Leave the session, the working directory, stdin and stdout of the process that started the agent.

    Standard error stays open until `silence`, for errors at startup. Raises OSError.
    """
    os.setsid()
    os.chdir("/")
    _redirect(0, 1)


def silence() -> None:
    """Leave standard error too: from here on errors go to the log only."""
    _redirect(2)


def without_handled(mask: set[int | signal.Signals]) -> set[int | signal.Signals]:
    """`mask` without the signals that are handled here: whoever started this may have blocked all."""
    return mask - {*SIGNALS, signal.SIGCHLD}


def end_on_signals(*, foreground: bool, socket_activated: bool) -> None:
    """End the process on the signals that end the agent, with ssh-agent's exit status.

    For the time until the event loop has its own handlers, in which there is nothing to clean up. An
    exception would be lost in a destructor, or in what import does with its locks. SIGUSR1 is ignored, as
    there are no keys to drop yet; SIGINT ends only an agent in the foreground.
    """

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        os._exit(0 if number == signal.SIGTERM and socket_activated else 2)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, end)
    signal.signal(signal.SIGINT, end if foreground else signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def execute(command: tuple[str, ...]) -> NoReturn:
    """Replace this process with `command`, searched for in PATH as by execvp(3). Raises OSError.

    The command gets the signals and the environment this process was started with, and what was
    added to `os.environ`, but not what Python changed at its own startup.
    """
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    _undo_locale_coercion()
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        import shutil

        script = shutil.which(command[0])
        if error.errno != errno.ENOEXEC or script is None:
            raise
        os.execv("/bin/sh", ["sh", script, *command[1:]])  # noqa: S606


def _undo_locale_coercion() -> None:
    """Unset the LC_CTYPE that Python exports when it is started in the C locale (PEP 538)."""
    permit_tracing()  # else /proc/self belongs to root; nothing secret is in this process
    with suppress(OSError), open("/proc/self/environ", "rb") as environment:
        if not any(entry.startswith(b"LC_CTYPE=") for entry in environment.read().split(b"\0")):
            os.environ.pop("LC_CTYPE", None)


def _redirect(*fds: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in fds:
        os.dup2(null, fd)
    os.close(null)
