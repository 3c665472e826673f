"""One client: bytes to frames, replies in the order of requests, and no client in another's way.

Plain non-blocking sockets on the loop's selector: asyncio's own transports and streams cost clients that
connect for every request (as ssh does) about half of what an agent can serve.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial

from replug.agent.clients.poller import Poller
from replug.protocol.constants import MAX_MESSAGE
from replug.protocol.framing import MessageReader, frame
from replug.protocol.wire import ProtocolError

log = logging.getLogger(__name__)

_TURN = 0.0005  # seconds; then other clients get theirs
_MOST_UNREAD_OUTPUT = MAX_MESSAGE  # bytes; a client that does not read its replies is served no further

Answer = Callable[[bytearray], bytes | Awaitable[bytes]]
"""From a message, which it wipes, to the reply, or to something to await for it; it never raises."""


class Connection:
    """Reads requests from `client` (non-blocking), gives each to `answer`, and writes what it returns.

    `answer` gets a message without its length and returns the reply, or something to await for it.
    `closed` is called once, when the connection is over. `poller` tells when `client` is ready.
    """

    def __init__(
        self,
        client: socket.socket,
        answer: Answer,
        closed: Callable[[Connection], None],
        poller: Poller,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._poller = poller
        self._socket = client
        self._answer = answer
        self._closed = closed
        self._received = MessageReader()
        self._output = bytearray()
        self._reading = False
        self._at_end = False
        self._waiting: asyncio.Future[None] | None = None
        self._turn: asyncio.Handle | None = None
        self._open = True
        self._read_if_wanted()

    def read(self) -> None:
        """Serve what has arrived already, as the first request of a client that just connected mostly has."""
        if self._reading:
            self._or_close(self._readable)

    def close(self) -> None:
        """Close now. A request that is waiting is cancelled."""
        if not self._open:
            return
        self._open = False
        self._stop_reading()
        self._poller.remove_writer(self._socket)
        if self._turn is not None:
            self._turn.cancel()
        if self._waiting is not None:
            # Not at once: a task that never began would not wipe what its request holds.
            self._loop.call_soon(self._waiting.cancel)
        self._socket.close()
        self._received.wipe()
        self._closed(self)

    def _read_if_wanted(self) -> None:
        wanted = not self._at_end and not self._received.full
        if wanted and not self._reading:
            self._poller.add_reader(self._socket, partial(self._or_close, self._readable))
        elif not wanted and self._reading:
            self._poller.remove_reader(self._socket)
        self._reading = wanted

    def _stop_reading(self) -> None:
        self._at_end = True
        self._read_if_wanted()

    def _readable(self) -> None:
        try:
            with self._received.writable() as space:
                count = self._socket.recv_into(space)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._received.received(count)
        if not count:
            if (self._waiting or self._output) and _is_gone(self._socket):
                self.close()
                return
            # It may have closed its sending side only: what it has asked is still answered.
            self._stop_reading()
        elif self._received.full:
            self._read_if_wanted()
        self._serve()

    def _or_close(self, step: Callable[[], None]) -> None:
        """Take `step`; close if it fails: with too little memory, it would fail again and again."""
        try:
            step()
        except Exception as error:
            self.close()
            log.error("connection closed: %s", _in_words(error))

    def _serve(self) -> None:
        self._turn = None
        end = time.monotonic() + _TURN
        while time.monotonic() < end:
            if not self._open or self._waiting or len(self._output) >= _MOST_UNREAD_OUTPUT:
                return
            try:
                message = self._received.take()
            except ProtocolError as error:
                log.warning("connection closed: %s", error)
                self.close()
                return
            if message is None:
                break
            reply = self._answer(message)
            if isinstance(reply, bytes):
                self._send(reply)
            else:
                self._waiting = asyncio.ensure_future(self._send_later(reply))
        else:
            self._turn = self._loop.call_soon(self._or_close, self._serve)
            return
        if self._open:
            if not self._reading:
                self._read_if_wanted()
            if self._at_end and not self._output and not self._waiting:
                self.close()

    async def _send_later(self, reply: Awaitable[bytes]) -> None:
        message = await reply
        self._waiting = None
        if self._open:
            self._or_close(partial(self._send, message))
            self._or_close(self._serve)

    def _send(self, message: bytes) -> None:
        data = frame(message)
        if not self._output:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close()
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._poller.add_writer(self._socket, partial(self._or_close, self._writable))
        self._output += data

    def _writable(self) -> None:
        try:
            sent = self._socket.send(self._output)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        del self._output[:sent]
        if not self._output:
            self._poller.remove_writer(self._socket)
        self._serve()


def _is_gone(client: socket.socket) -> bool:
    """Whether both directions are closed, not the client's sending side only."""
    poll = select.poll()
    poll.register(client, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def _in_words(error: Exception) -> str:
    return "out of memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}"
