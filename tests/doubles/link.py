"""A connection to an agent, and the client at its other end."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

from doubles.stand_ins import settle, waiting

from replug.agent.clients.connection import Connection
from replug.agent.clients.memory import Memory
from replug.agent.clients.rounds import Rounds
from replug.protocol.wire import ProtocolError
from replug.token.requester import Requester

Answer = Callable[[bytes], bytes | Awaitable[bytes]]


def echo(message: bytes) -> bytes:
    return b"reply to " + message


class Script:
    """A conversation that is made of one function; it has no list at hand."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.at_hand = b""
        self.errors: list[ProtocolError] = []

    def answer(self, message: bytearray) -> bytes | Awaitable[bytes]:
        return self._answer(bytes(message))

    def listing_at_hand(self) -> bytes:
        return self.at_hand

    def over(self) -> None:
        pass

    def broken(self, error: ProtocolError) -> None:
        self.errors.append(error)


class Link:
    """A connection and the client at its other end. Make it in a running loop, others with its `rounds`."""

    def __init__(self, answer: Answer = echo, rounds: Rounds | None = None) -> None:
        self.rounds = rounds or Rounds(waiting())
        self.client, agents = socket.socketpair()
        self.client.setblocking(False)
        agents.setblocking(False)
        self.over = asyncio.Event()
        self.times_closed = 0
        self.script = Script(answer)
        self.connection = Connection(
            agents, Requester(None, os.getpid()), self.script, self._closed, self.rounds, Memory()
        )
        self.rounds.give_turn(self.connection)

    def _closed(self, connection: Connection) -> None:
        assert connection is self.connection
        self.times_closed += 1
        self.over.set()

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.client, data)

    async def read(self, length: int) -> bytes:
        """So many bytes; fewer at the end of the connection."""
        data = b""
        while len(data) < length:
            piece = await asyncio.get_running_loop().sock_recv(self.client, length - len(data))
            if not piece:
                break
            data += piece
        return data

    async def reply(self) -> bytes:
        return await self.read(int.from_bytes(await self.read(4), "big"))

    def send_what_fits(self, data: bytes) -> int:
        """How much of `data` the socket takes now."""
        sent = 0
        while sent < len(data):
            try:
                sent += self.client.send(data[sent:])
            except BlockingIOError:
                break
        return sent

    async def send_until_stuck(self, data: bytes) -> int:
        """How much of `data` the agent takes from a client that does nothing but send."""
        sent = 0
        while True:
            taken = self.send_what_fits(data[sent:])
            sent += taken
            await settle()
            if not taken:
                return sent

    async def finished(self) -> None:
        """Wait until the agent has closed the connection."""
        async with asyncio.timeout(10):
            await self.over.wait()
        assert self.times_closed == 1
