"""A client's connection to another agent: what the client has said of its sessions, and then its requests."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from replug.agent.keys.refusal import RequestRefusedError, locked
from replug.agent.upstreams.error import UpstreamEndedError, UpstreamError
from replug.protocol.framing import MessageReader, frame
from replug.protocol.wire import ProtocolError

_AT_ONCE = 0.5
"""Seconds: what ends sooner keeps nobody waiting for long. On a busy machine that takes its time, too."""


class Link:
    """Opened at the first request, and again after it was closed.

    `connect` makes the connection. `binds` are the session-binds that the client has sent so far, as they
    came: the other agent gets each of them, in order, before anything else. It may refuse them, as one does
    that has never heard of them. `is_locked` says whether this agent is: then nothing is sent. `name` is the
    other's.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Awaitable[socket.socket]],
        binds: Sequence[bytes],
        is_locked: Callable[[], bool],
    ) -> None:
        self.busy = False
        self._name = name
        self._connect = connect
        self._binds = binds
        self._is_locked = is_locked
        self._socket: socket.socket | None = None
        self._bound = 0
        """How many of `binds` were sent."""
        self._interrupted: RequestRefusedError | None = None
        self._began = 0.0
        """When the request under way did, by the monotonic clock."""
        self._over = False

    async def ask(self, request: bytes) -> bytearray:
        """The reply to one request; both are messages without their lengths. One request at a time.

        Whoever gives up waiting cancels this. UpstreamError, RequestRefusedError.
        """
        self.busy, self._interrupted, self._began = True, None, time.monotonic()
        try:
            if self._socket is not None and _has_news(self._socket):
                self.drop()  # it ended, or has said what nobody asked for
            while self._bound < len(self._binds) or self._socket is None:
                await self._prepare()
            return await self._exchange(request)
        except BaseException as error:
            self.drop()
            if self._interrupted is not None and isinstance(error, UpstreamError):
                raise self._interrupted from error
            raise
        finally:
            self.busy = False
            if self._over:
                self.drop()

    async def _prepare(self) -> None:
        """Open it, or send the next of the binds."""
        if self._socket is None:
            if self._is_locked():
                raise locked()
            self._socket, self._bound = await self._connect(), 0
        else:
            await self._exchange(self._binds[self._bound])
            self._bound += 1

    async def _exchange(self, message: bytes) -> bytearray:
        if self._is_locked():
            raise locked()
        if self._over:
            raise self._not_any_more()
        assert self._socket is not None
        try:
            reply = await _reply(self._socket, message)
        except OSError as error:
            raise self._ended(f": {error.strerror}") from error
        except ProtocolError as error:
            raise UpstreamError(f"{self._name} gives no usable answer: {error}") from error
        if not reply:
            raise self._ended("")
        return reply

    def _ended(self, why: str) -> UpstreamError:
        is_at_once = time.monotonic() - self._began < _AT_ONCE
        kind = UpstreamEndedError if is_at_once else UpstreamError
        return kind(f"{self._name} ended the connection without an answer{why}")

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._socket is not None

    def interrupt(self, why: RequestRefusedError) -> None:
        """End the request that is under way: it raises `why`."""
        if self._socket is not None:
            self._interrupted = why
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _not_any_more(self) -> RequestRefusedError:
        return RequestRefusedError(f"{self._name} is not asked any more")

    def drop(self) -> None:
        """Close the connection; nothing is under way."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        """Close it for good; what is under way ends, and closes it then."""
        self._over = True
        if self.busy:
            self.interrupt(self._not_any_more())
        else:
            self.drop()


async def _reply(connected: socket.socket, message: bytes) -> bytearray:
    """The reply to a message; empty if the connection ended instead. OSError, ProtocolError."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connected, frame(message))
    received = MessageReader()
    while (reply := received.take()) is None:
        with received.writable() as space:
            count = await loop.sock_recv_into(connected, space)
        received.received(count)
        if count == 0:
            return bytearray()
    if not received.empty:
        raise ProtocolError("there is more than one")
    return reply


def _has_news(connected: socket.socket) -> bool:
    """Whether there is something to read, or the end."""
    try:
        connected.recvmsg(1, 0, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
