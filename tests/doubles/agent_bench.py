"""The inside of an agent: requests go in as bytes and come out as replies; its control socket beside it."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import AbstractContextManager
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest
from doubles.stand_ins import PIN, AtOneDesk, Key, Person, Slots, StandInToken, use_slots

from replug.agent import keyring
from replug.agent.ca.journal import Journal
from replug.agent.clients.client import Client
from replug.agent.clients.peer import Peer
from replug.agent.clients.view import View
from replug.agent.commands.main import main
from replug.agent.config.options import Options
from replug.agent.config.settings import Settings
from replug.agent.control.client import control_path
from replug.agent.control.refusals import RefusalHistory
from replug.agent.control.server import Control, asker
from replug.agent.desktop.touch_notice import TouchNotices
from replug.agent.dispatch import Conversation, Dispatcher
from replug.agent.keyring import Keyring
from replug.agent.refresh import refresh
from replug.agent.reload import Reloader, reload
from replug.agent.renewal import renew_files
from replug.agent.status import authorities, forget, status
from replug.protocol.constraints import Constraint
from replug.protocol.decoding import Request, Response, decode_response
from replug.protocol.framing import frame
from replug.protocol.messages import (
    AddSmartcardKey,
    IdentitiesAnswer,
    RemoveSmartcardKey,
    RequestIdentities,
    SignRequest,
    SignResponse,
)
from replug.protocol.signatures import verify
from replug.token.pins.pin import Pin
from replug.token.prompts.terminals import Terminals
from replug.token.security_keys.authenticators import Authenticators
from replug.token.security_keys.helper import SkHelper

LOGIN_KEY, WORK_KEY, HOME_KEY = Key("login"), Key("work key"), Key("home key")


class AgentBench:
    """An agent for the tokens in `slots`, whichever module they are reached by."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        folder: Path,
        *tokens: StandInToken,
        person: Person | None = None,
        options: Options | None = None,
    ) -> None:
        self.slots = Slots(*tokens)
        use_slots(monkeypatch, self.slots)
        self.module = folder / "module.so"
        self.module.touch()
        self.person = person or Person()
        settings = Settings(options or Options(provider_patterns=f"{folder}/*"))
        desk = AtOneDesk(self.person, lambda: keyring.boottime())
        self.journal = folder / "state" / "issued.jsonl"
        notices = TouchNotices({}, lambda: None, Terminals(None))
        self.history = RefusalHistory()
        self.authenticators = Authenticators(SkHelper(os.environ), frozenset)
        self.keyring = Keyring(
            settings,
            desk,
            notices,
            self.slots.fork_server,
            Journal(lambda: self.journal),
            self.history,
            self.authenticators,
        )
        self.dispatcher = Dispatcher(self.keyring, self.history)
        self._conversations: dict[int, Conversation] = {}
        self.client = self.new_client()

    def new_client(self, view: View | None = None) -> Client:
        client = Client(Peer(os.getpid(), os.getuid()), view=view)
        client.at_hand = self.keyring.at_hand_for(client)
        return client

    def uri(self, path: str, query: str = "") -> str:
        """A URI that names this module."""
        return f"pkcs11:{path}?module-path={self.module}{query}"

    async def ask(self, request: Request | bytes, client: Client | None = None) -> Response:
        """The reply to a request, or to bytes that claim to be one; a list at hand is that reply."""
        message = request if isinstance(request, bytes) else request.encode()
        client = client or self.client
        conversation = self._conversations.setdefault(
            id(client), Conversation(self.dispatcher, self.keyring.changes, client)
        )
        at_hand = conversation.listing_at_hand() if isinstance(request, RequestIdentities) else b""
        answer = conversation.answer(bytearray(message))
        reply = answer if isinstance(answer, bytes) else await answer
        assert at_hand in {b"", frame(reply)}
        return decode_response(reply)

    async def add(self, *constraints: Constraint, provider: str = "", pin: bytes = PIN) -> Response:
        """`ssh-add -s`, of the whole module unless `provider` says otherwise."""
        return await self.ask(AddSmartcardKey((provider or str(self.module)).encode(), pin, constraints))

    async def remove(self, provider: str = "") -> Response:
        """`ssh-add -e`."""
        return await self.ask(RemoveSmartcardKey((provider or str(self.module)).encode(), b""))

    async def sign(self, key: Key) -> Response:
        """The reply to a sign request; a signature has to be right."""
        reply = await self.ask(SignRequest(key.blob, b"data", 0))
        if isinstance(reply, SignResponse):
            verify(key.public, reply.signature, b"data")
        return reply

    async def listed(self) -> list[str]:
        """The comments of the keys that `ssh-add -l` shows."""
        answer = await self.ask(RequestIdentities())
        assert isinstance(answer, IdentitiesAnswer)
        return [identity.comment.decode() for identity in answer.identities]

    def remembered(self, token: StandInToken) -> Pin | None:
        """The PIN that is remembered for `token`, at whichever module."""
        pins = self.keyring.pins
        owners = (owner for owner in pins._pins if owner.token == token.identity)
        return next(filter(None, map(pins.get, owners)), None)

    @property
    def reasons(self) -> list[str]:
        """The reasons of the refusals so far."""
        return [refusal.reason for refusal in self.history]


def processes_left(agent: AgentBench) -> int:
    """How many worker processes still run."""
    return sum(process.alive for process in agent.slots.processes)


class ControlRig:
    """An agent whose control socket is open while `running`, and `replug` in the same environment."""

    def __init__(self, agent: AgentBench, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.agent = agent
        self.release = version("replug")
        self.socket = str(folder / "agent")
        self.path = Path(control_path(self.socket))
        commands = {
            "status": lambda: status(agent.keyring, (), agent.history, self.socket, self.release),
            "ca": lambda: authorities(agent.keyring, self.socket),
            "issue": lambda: renew_files(agent.keyring, asker.get()),
            "forget": partial(forget, agent.keyring),
            "refresh": partial(refresh, agent.keyring),
            "reload": partial(reload, Reloader(agent.keyring, partial(asyncio.sleep, 0))),
        }
        self.control = Control(self.socket, commands)
        self._capsys = capsys

    async def replug(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, output and complaints of `replug`, run beside the agent's loop."""
        status = await asyncio.to_thread(main, list(arguments))
        return (status, *self._capsys.readouterr())

    async def say(self, text: bytes) -> bytes:
        """What the control socket answers to these bytes, up to its end."""
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        writer.write(text)
        try:
            async with asyncio.timeout(10):
                return await reader.read()
        except ConnectionResetError:
            return b""  # closed before all was read that we sent
        finally:
            writer.close()


def listening(path: Path) -> AbstractContextManager[socket.socket]:
    """A socket that somebody listens on."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen()
    return server
