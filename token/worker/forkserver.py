"""Forks workers from a process that refuses tracing and never holds a secret.

So no other program can ever open the memory of a worker, as it can in the first moments of a program that was
just executed. A fork also starts in milliseconds, shares most of its memory with other workers,
and consists of the code that was loaded, even if the package on disk was replaced meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from replug.token.hardening import end_with_parent
from replug.token.worker.passing import send_with_descriptor

HELLO_LENGTH = 4
"""A worker's first message on its connection: its process id, and with it a pidfd.

One byte instead is the errno of a fork that failed.
"""
LEAVING = b"leaving with "
"""How the agent's last message begins: its exit status follows."""
_LONGEST = 4096  # bytes of a message
_FIRST_OF_OURS = 3  # descriptor that is no standard stream


def _installed() -> tuple[int, int, int]:
    """What changes when the package is replaced. OSError when it is removed."""
    status = os.stat(__file__)
    return status.st_dev, status.st_ino, status.st_mtime_ns


_LOADED = _installed()


def serve_forks(requests: socket.socket, tell: Callable[[bytes], None]) -> None:
    """Serve the messages on `requests`, a SOCK_SEQPACKET socket, until its other end is closed.

    A message with a descriptor is the name of a worker's Python module, whose `work` serves the descriptor in
    a new process. All others go to `tell`. The caller reaps the children, and its signal handlers are called
    whenever a signal comes.
    """
    signals = _write_signals_down()
    while True:
        _wait(requests, signals)
        try:
            message, descriptors, _, _ = socket.recv_fds(requests, _LONGEST, 1)
        except ConnectionError:
            return
        if descriptors:
            with socket.socket(fileno=descriptors[0]) as connection:
                _fork(message.decode(), connection)
        elif message:
            tell(message)
        else:
            return


def _write_signals_down() -> int:
    """A pipe's end that can be read as soon as a signal has come.

    A signal that comes just before a system call that waits is handled after that call only, and nothing else
    may end it for hours.
    """
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    return read


def _wait(requests: socket.socket, signals: int) -> None:
    """Wait for a message on `requests`, handling signals meanwhile."""
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    poll.register(signals, select.POLLIN)
    ready: dict[int, int] = {}
    while requests.fileno() not in ready:
        ready = dict(poll.poll())
        if signals in ready:
            os.read(signals, _LONGEST)


def load(program: str) -> ModuleType:
    """Import a worker's program, and python-pkcs11 if the program needs it, but without `pkcs11.util`.

    That package converts keys by way of asn1crypto, which is a third of all that is imported here; we read
    what tokens hold by ourselves (`keys.py`). An `import pkcs11.util` later loads the real thing.
    Raises whatever it raises, also when the package was replaced.
    """
    if program in sys.modules:
        return sys.modules[program]
    if _installed() != _LOADED:
        raise ImportError("another version would be mixed with this one")
    stand_in = ModuleType("pkcs11.util")
    stand_in.__getattr__ = lambda name: None  # type: ignore[method-assign]  # pkcs11 re-exports its modules
    sys.modules.setdefault("pkcs11.util", stand_in)
    try:
        worker = import_module(program)
        if "pkcs11" in sys.modules:
            import_module("pkcs11._pkcs11")  # else loaded with the first module, in every worker again
    finally:
        if sys.modules["pkcs11.util"] is stand_in:
            del sys.modules["pkcs11.util"]
    # The collector would write to every object, and a page that is written to is no longer a common one.
    gc.freeze()
    return worker


def _fork(program: str, connection: socket.socket) -> None:
    """Fork a worker that greets on `connection`; if that fails, send the errno there instead."""
    try:
        work = load(program).work
    except Exception:  # removed, or replaced by another version: what that raises is not known
        _decline(connection, errno.ENOPKG)
        return
    server = os.getpid()
    # The handlers of this process are not for a worker.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        worker = os.fork()
    except OSError as error:
        _decline(connection, error.errno or errno.EAGAIN)
        return
    finally:
        if os.getpid() == server:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if worker == 0:
        _become_worker(server, connection, work)


def _decline(connection: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # the agent may have given up waiting
        connection.send(bytes([number]))


def _become_worker(
    server: int, connection: socket.socket, work: Callable[[socket.socket], NoReturn]
) -> NoReturn:
    try:
        close_all_but(connection.fileno())
        end_with_parent(server, signal.SIGKILL)
        _reset_signals()
        null = os.open(os.devnull, os.O_RDWR)
        # What a module prints to standard output would end up in what a shell evaluates.
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.close(null)
        process = os.getpid()
        notice = os.pidfd_open(process)
        send_with_descriptor(connection, process.to_bytes(HELLO_LENGTH, "big"), notice)
        os.close(notice)
        work(connection)
    finally:
        os._exit(1)


def close_all_but(kept: int) -> None:
    """Close all descriptors but `kept` and the standard streams.

    In a worker all others are the server's own: the way to it, and its hold on the agent. What is open /proc
    says. The limit of open files does not: any process of the user may lower it (prlimit(2)), and a module
    that has the way to the server receives what is meant for other workers.
    """
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number >= _FIRST_OF_OURS and number != kept:
            with contextlib.suppress(OSError):  # the one that listed the others is closed already
                os.close(number)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)  # the number will be that of something else
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    # Ctrl-C in the agent's terminal is for the agent to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
