"""A whole connection under fire: whatever is sent, others are served, and so is what made sense."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from doubles.fork_servers import RunningForkServer
from doubles.stand_ins import waiting
from fuzz.authority import CA, OPTIONS, REQUESTS, CaKey, only_what_is_allowed
from fuzz.targets import recorded

from replug.agent.ca.journal import Journal
from replug.agent.clients.client import Client
from replug.agent.clients.connection import Connection
from replug.agent.clients.memory import Memory
from replug.agent.clients.peer import Peer
from replug.agent.clients.rounds import Rounds
from replug.agent.config.settings import Settings
from replug.agent.control.refusals import RefusalHistory
from replug.agent.desktop.touch_notice import TouchNotices
from replug.agent.dispatch import Conversation, Dispatcher
from replug.agent.keyring import Keyring
from replug.agent.keys.constraints import KeyConstraints
from replug.agent.keys.identity import SoftwareIdentity
from replug.protocol.decoding import decode_response
from replug.protocol.framing import frame
from replug.protocol.messages import IdentitiesAnswer, RequestIdentities
from replug.token.errors import TokenError
from replug.token.pins.pin import Pin
from replug.token.prompts.request import ConfirmRequest, PinRequest
from replug.token.prompts.terminals import Terminals
from replug.token.requester import Requester
from replug.token.security_keys.authenticators import Authenticators
from replug.token.security_keys.helper import SkHelper

SEEDS = [*recorded("requests"), *REQUESTS]
_PATIENCE = 30.0  # seconds, for any one thing


class Nobody:
    """A person who is never there."""

    async def ask(self, request: PinRequest) -> Pin:
        raise TokenError("nobody is there")

    async def confirm(self, request: ConfirmRequest) -> bool:
        return False


class Agent:
    """The inside of an agent, with as many connections as wanted. Make it in a running loop."""

    def __init__(self) -> None:
        self.faults: list[dict[str, Any]] = []
        self._loop = asyncio.get_running_loop()
        self._rounds = Rounds(waiting())
        self._loop.set_exception_handler(lambda _, context: self.faults.append(context))
        with tempfile.TemporaryDirectory() as nothing_in_it:
            options = replace(OPTIONS, provider_patterns=f"{Path(nothing_in_it)}/*")
        self.fork_server = RunningForkServer()
        self._state = tempfile.TemporaryDirectory()
        self.journal = Journal(lambda: Path(self._state.name) / "issued.jsonl")
        self.ca_key = CaKey()
        self.history = RefusalHistory()
        self.authenticators = Authenticators(SkHelper({"SSH_SK_HELPER": "/bin/false"}), frozenset)
        notices = TouchNotices({}, lambda: None, Terminals(None))
        self.keyring = Keyring(
            Settings(options),
            Nobody(),
            notices,
            self.fork_server,
            self.journal,
            self.history,
            self.authenticators,
        )
        self._dispatcher = Dispatcher(self.keyring, self.history)

    def hold_ca_key(self) -> None:
        """Whatever was removed, it is there again."""
        key: Any = self.ca_key
        self.keyring.identities.add(SoftwareIdentity(CA.blob, b"ca", KeyConstraints(), key))

    def connect(self) -> socket.socket:
        """A client's end of a new connection."""
        client, agents = socket.socketpair()
        client.setblocking(False)
        agents.setblocking(False)
        who = Client(Peer(os.getpid(), os.getuid()))
        conversation = Conversation(self._dispatcher, self.keyring.changes, who)
        self._rounds.give_turn(
            Connection(
                agents, Requester(None, who.peer.pid), conversation, lambda _: None, self._rounds, Memory()
            )
        )
        return client

    async def lists(self) -> bool:
        """Whether a new client gets its list."""
        with self.connect() as client:
            await self._loop.sock_sendall(client, frame(RequestIdentities().encode()))
            reply = await _reply(self._loop, client)
        return reply is not None and isinstance(decode_response(reply), IdentitiesAnswer)

    async def close(self) -> None:
        """Leave no process behind."""
        self.keyring.remove_all()
        for _ in range(10):
            await asyncio.sleep(0)
        self._state.cleanup()


async def attack(agent: Agent, messages: Sequence[bytes], pieces: Sequence[int], raw: bytes) -> None:
    """Sends the messages, each framed, in pieces of these sizes, then `raw`; all but that is answered."""
    loop = asyncio.get_running_loop()
    agent.hold_ca_key()
    async with asyncio.timeout(_PATIENCE):
        with agent.connect() as client:
            sending = asyncio.create_task(_send(loop, client, b"".join(map(frame, messages)) + raw, pieces))
            for message in messages:
                reply = await _reply(loop, client)
                assert reply is not None, f"closed at {message[:50]!r}"
                decode_response(reply)
            try:
                await sending
            except (BrokenPipeError, ConnectionResetError):
                assert raw, "closed although all lengths were right"
        assert await agent.lists()
        await _unlock(agent)
    assert agent.faults == []
    while agent.ca_key.signed:
        only_what_is_allowed(agent.ca_key.signed.pop())


async def _unlock(agent: Agent) -> None:
    """A message may well have locked the agent, with whatever passphrase: make it a new one then."""
    if agent.keyring.locked:
        notices = TouchNotices({}, lambda: None, Terminals(None))
        fresh = Keyring(
            agent.keyring.settings,
            Nobody(),
            notices,
            agent.fork_server,
            agent.journal,
            agent.history,
            agent.authenticators,
        )
        agent.keyring.remove_all()
        agent.keyring = agent._dispatcher._agent = fresh


async def _send(
    loop: asyncio.AbstractEventLoop, client: socket.socket, data: bytes, pieces: Sequence[int]
) -> None:
    for size in pieces:
        await loop.sock_sendall(client, data[:size])
        data = data[size:]
        await asyncio.sleep(0)
    await loop.sock_sendall(client, data)


async def _reply(loop: asyncio.AbstractEventLoop, client: socket.socket) -> bytes | None:
    head = await _read(loop, client, 4)
    return None if head is None else await _read(loop, client, int.from_bytes(head, "big"))


async def _read(loop: asyncio.AbstractEventLoop, client: socket.socket, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        try:
            piece = await loop.sock_recv(client, count - len(data))
        except ConnectionResetError:
            return None
        if not piece:
            return None
        data += piece
    return data
