"""Unix sockets whose other end may pass descriptors that nobody here wants (unix(7), SCM_RIGHTS).

The kernel closes those in the process that receives what they came with, or that closes the socket with them
unread. If nobody else has them, that may wait for as long as the other end likes: a socket of the network may
linger (socket(7), SO_LINGER). So they are left unread, and the socket is closed by a process that ends: there
the kernel does not wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import Callable
from functools import cache
from typing import Any

_SO_PASSRIGHTS = 83  # asm-generic/socket.h; Python's socket has no name for it
_CREDENTIALS = socket.CMSG_SPACE(12)  # struct ucred
_PAUSE = 0.1  # seconds between two processes that end; each closes all that there is by then
_MANY = 16  # for which there is no such pause
_LONGEST_LIFE = 10.0  # seconds of such a process, if this one does not end it


def refuse_descriptors(one: socket.socket) -> bool:
    """Have the kernel refuse those that are sent to a socket, or to what a listening one accepts from now on.

    Whether it does, which is from Linux 6.16 on.
    """
    if _kernel_refuses():
        one.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
    return _kernel_refuses()


def bytes_only(connected: socket.socket, leave: Callable[[int], object]) -> socket.socket:
    """The socket, if the kernel refuses descriptors that are sent to it, else a BytesOnly in its place."""
    if _kernel_refuses() and not connected.getsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS):
        return connected
    return BytesOnly.of(connected, leave)


@cache
def _kernel_refuses() -> bool:
    one, other = socket.socketpair()
    with one, other:
        try:
            one.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
        except OSError:
            return False
        try:
            socket.send_fds(other, [b"one"], [other.fileno()])
        except PermissionError:
            return True
        return False  # that number means something else on this machine


class BytesOnly(socket.socket):
    """A connected stream socket that receives bytes alone, and is closed without waiting.

    Where descriptors come, receiving raises ConnectionAbortedError from then on.
    """

    leave: Callable[[int], object]
    """Gets the descriptor of a socket that is not to be closed here; see `Disposal`."""

    @classmethod
    def of(cls, connected: socket.socket, leave: Callable[[int], object]) -> BytesOnly:
        """The same socket; `connected` is not to be used any more."""
        guarded = cls(connected.family, connected.type, connected.proto, fileno=connected.detach())
        # A byte that is sent out of band (MSG_OOB) would not be there for who only looks, and who receives or
        # closes would drop it, with what came with it.
        guarded.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        guarded.leave = leave
        return guarded

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As that of sockets; `nbytes` and `flags` are not used."""
        count, _, found, _ = self.recvmsg_into([buffer], 0, socket.MSG_PEEK)
        self._check(found)
        return super().recv_into(buffer, count) if count else 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As that of sockets; `flags` are not used."""
        data, _, found, _ = self.recvmsg(size, 0, socket.MSG_PEEK)
        self._check(found)
        return super().recv(len(data)) if data else b""

    def check(self) -> None:
        """Raise ConnectionAbortedError if descriptors come next, BlockingIOError if nothing does."""
        self._check(self.recvmsg(1, _CREDENTIALS, socket.MSG_PEEK | socket.MSG_TRUNC)[2])

    def _check(self, found: int) -> None:
        if found & socket.MSG_CTRUNC:
            raise ConnectionAbortedError(errno.ECONNABORTED, "descriptors were passed")

    def close(self) -> None:
        """As that of sockets; what is unread is lost."""
        if self.fileno() >= 0 and self._has_more():
            self.leave(self.detach())
        super().close()

    def _has_more(self) -> bool:
        """Whether there is something to read, after which no more can come."""
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RD)
            return bool(super().recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        return False


class BytesOnlyListener(socket.socket):
    """A listening socket whose connections are `bytes_only`."""

    leave: Callable[[int], object]

    @classmethod
    def of(cls, listener: socket.socket, leave: Callable[[int], object]) -> BytesOnlyListener:
        """The same socket; `listener` is not to be used any more."""
        guarded = cls(listener.family, listener.type, listener.proto, fileno=listener.detach())
        guarded.leave = leave
        refuse_descriptors(guarded)
        return guarded

    def accept(self) -> tuple[socket.socket, Any]:
        connected, address = super().accept()
        return bytes_only(connected, self.leave), address


class Disposal:
    """Has descriptors closed that this process must not be the last to have."""

    def __init__(self) -> None:
        self._waiting: list[int] = []
        self._ending: list[int] = []
        """Processes that have been killed, and may not have ended yet."""
        self._task: asyncio.Task[None] | None = None

    def take(self, descriptor: int) -> None:
        """Have it closed soon; at its end this process closes it itself, without waiting."""
        self._waiting.append(descriptor)
        if len(self._waiting) >= _MANY:
            self._close_all()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        while self._waiting or self._ending:
            if self._waiting:
                self._close_all()
            await asyncio.sleep(_PAUSE)
            # What one closes may take its time.
            self._ending = [one for one in self._ending if not _has_ended(one)]

    def _close_all(self) -> None:
        try:
            other = os.fork()
        except OSError:  # there can be none now
            return
        if other == 0:
            time.sleep(_LONGEST_LIFE)
            os._exit(0)
        while self._waiting:
            os.close(self._waiting.pop())
        os.kill(other, signal.SIGKILL)
        self._ending.append(other)


def _has_ended(process: int) -> bool:
    return os.waitpid(process, os.WNOHANG)[0] != 0
