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
from typing import Protocol

from replug.agent.clients.memory import LITTLE, Memory
from replug.agent.clients.rounds import ENDED, READING, WRITING, Rounds
from replug.protocol.framing import MessageReader, frame
from replug.protocol.messages import RequestIdentities
from replug.protocol.wire import ProtocolError
from replug.token.requester import Requester

log = logging.getLogger(__name__)

_MOST_UNREAD_OUTPUT = 16 * 1024  # bytes; a client that does not read its replies is served no further

_REQUEST_IDENTITIES = frame(RequestIdentities().encode())


class Conversation(Protocol):
    """What the agent says to this client. It never raises."""

    def answer(self, message: bytearray) -> bytes | Awaitable[bytes]:
        """From a message, which it wipes, to the reply, or to something to await for it."""

    def listing_at_hand(self) -> bytes:
        """The frame with the list of keys; empty if it has to be made."""

    def broken(self, error: ProtocolError) -> None:
        """What the client sends is no message: the connection is over."""

    def over(self) -> None:
        """The connection is closed; a request that is waiting is about to be cancelled."""


class Connection:
    """Reads requests from `client` (non-blocking), and writes what the `conversation` answers to each.

    `closed` is called once, when the connection is over. `rounds` give it its turns; the
    first is for whoever made it to ask for. `memory` knows what it holds.
    """

    def __init__(
        self,
        client: socket.socket,
        asker: Requester,
        conversation: Conversation,
        closed: Callable[[Connection], None],
        rounds: Rounds,
        memory: Memory,
    ) -> None:
        self.asker = asker
        self.has_turn = False
        self.events = 0
        self.used = time.monotonic()
        """When it was served last."""
        self._rounds = rounds
        self._memory = memory
        self._socket = client
        self._conversation = conversation
        self._closed = closed
        self._received = MessageReader()
        self._output = bytearray()
        self._weighs = False
        """Whether it holds so much memory that it is counted."""
        self._asked = 0
        """Bytes of the message that is being answered."""
        self._readable = True
        """Whether there may be something to read: bytes, or their end."""
        self._writable = True
        self._hung_up = False
        """Whether the client has closed its sending side, or both; its last bytes may be unread."""
        self._at_end = False
        self._watched = False
        self._waiting: asyncio.Future[None] | None = None
        self._open = True

    @property
    def idle(self) -> bool:
        """Whether the client waits for nothing."""
        return self._waiting is None and not self._output

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close now. A request that is waiting is cancelled."""
        if not self._open:
            return
        self._open = False
        self._rounds.forget(self)
        if self._waiting is not None:
            # Not at once: a task that never began would not wipe what its request holds.
            asyncio.get_running_loop().call_soon(self._waiting.cancel)
            self._waiting = None  # its end refers to us, and the garbage collector may take its time
        self._socket.close()
        self._conversation.over()
        self._received.wipe()
        self._memory.forget(self)
        self._closed(self)

    def serve(self, until: float) -> bool:
        """Write, read, and answer requests until `until`; whether there is more to do now."""
        self.used = until
        events, self.events = self.events, 0
        self._readable |= bool(events & (READING | ENDED))
        self._writable |= bool(events & (WRITING | ENDED))
        self._hung_up |= bool(events & ENDED)
        more = True
        try:
            while more and self._open:
                more = self._step()
                if more and time.monotonic() >= until:
                    break
            if self._open and not self._watched:
                self._watch(READING)
        except Exception as error:
            self._fail(error)
        held = self._received.size + self._asked + len(self._output)
        if self._open and (held > LITTLE or self._weighs):
            self._weigh(held)
        return self._open and more

    def _weigh(self, held: int) -> None:
        self._weighs = held > LITTLE
        self._memory.holds(self, held)

    def _step(self) -> bool:
        """Write, read, and answer one request; whether anything was read or answered."""
        if self._output:
            self._write()
        may_read = self._open and self._readable and not self._received.full
        if may_read:
            self._read()
        if self._received.is_just(_REQUEST_IDENTITIES) and self.idle and self._open:
            listing = self._conversation.listing_at_hand()
            if listing:
                self._received.wipe()
                self._write(listing)
                return self._readable
        message = None
        if self._open and not self._waiting and len(self._output) < _MOST_UNREAD_OUTPUT:
            message = self._received.take()
        if message is not None:
            asked = len(message)
            reply = self._conversation.answer(message)
            if isinstance(reply, bytes):
                self._write(frame(reply))
            else:
                self._asked = asked
                self._waiting = asyncio.ensure_future(self._send_later(reply))
        elif self._at_end and self.idle:
            self.close()
        return may_read or message is not None

    def _read(self) -> None:
        try:
            with self._received.writable() as space:
                room = len(space)
                count = self._socket.recv_into(space)
        except BlockingIOError:
            self._readable = False
            self._received.received(0)
            return
        except OSError:
            self.close()
            return
        self._received.received(count)
        if count == 0:
            self._readable = False
            # It may have closed its sending side only: what it has asked is still answered.
            self._at_end = True
            if not self.idle and _is_gone(self._socket):
                self.close()
        elif count < room and not self._hung_up:
            self._readable = False

    async def _send_later(self, reply: Awaitable[bytes]) -> None:
        message = await reply
        self._waiting, self._asked = None, 0
        if self._open:
            try:
                self._write(frame(message))
            except Exception as error:
                self._fail(error)
            if self._open and self._weighs:
                self._weigh(self._received.size + len(self._output))
            if self._at_end or self._readable or not self._received.empty:
                self._rounds.give_turn(self)

    def _write(self, reply: bytes = b"") -> None:
        """Send as much as the client takes now, `reply` last."""
        self._output += reply
        if not self._writable:
            return
        try:
            sent = self._socket.send(self._output)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        del self._output[:sent]
        if self._output:
            self._writable = False
            self._watch(READING | WRITING)

    def _watch(self, events: int) -> None:
        self._watched = True
        self._rounds.watch(self, events)

    def _fail(self, error: Exception) -> None:
        """Close: with too little memory, what failed would fail again and again."""
        self.close()
        if isinstance(error, ProtocolError):
            self._conversation.broken(error)
        else:
            log.error("connection closed: %s", _in_words(error))


def _is_gone(client: socket.socket) -> bool:
    """Whether both directions are closed, not the client's sending side only."""
    poll = select.poll()
    poll.register(client, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def _in_words(error: Exception) -> str:
    return "out of memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}"
