"""One row for each message: who may ask, what a locked agent does, and that handlers need an Agent only."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import TypeVar

import pytest
from doubles.agent_bench import AgentBench
from doubles.session_hosts import bind_of
from doubles.stand_ins import Key, run, settle

from replug.agent.clients.client import Client
from replug.agent.clients.peer import Peer
from replug.agent.config.options import Options
from replug.agent.config.settings import Settings
from replug.agent.control.refusals import RefusalHistory
from replug.agent.dispatch import Dispatcher
from replug.agent.keys.changes import Changes
from replug.agent.keys.first_scan import FirstScan
from replug.agent.keys.identity import Identity
from replug.agent.keys.refusal import RequestRefusedError
from replug.agent.upstreams.upstreams import Upstreams
from replug.protocol.additions import KeyAddition
from replug.protocol.constants import MessageType
from replug.protocol.constraints import Constraint
from replug.protocol.decoding import Response, decode_response
from replug.protocol.extensions import SESSION_BIND
from replug.protocol.messages import (
    Extension,
    Failure,
    IdentitiesAnswer,
    ListedIdentity,
    Lock,
    RemoveIdentity,
    RequestIdentities,
    SignRequest,
    Success,
    Unlock,
)
from replug.protocol.sessions import Sessions
from replug.protocol.wire import ProtocolError
from replug.token.pins.pin import Pin

T = TypeVar("T")

KEY = Key("login")
FORWARDED = Client(Peer(os.getpid(), os.getuid()), Sessions(bind_attempted=True))


class OneKey:
    """As small an agent as can be: it holds a key that cannot sign."""

    def __init__(self) -> None:
        self.changes = Changes(lambda: 0.0)
        self.locked = False
        self.upstreams = Upstreams(Settings(Options()), self.changes, lambda: self.locked)
        self.first_scan = FirstScan(lambda: ())
        self.expects_a_token = False
        self.held = (ListedIdentity(KEY.blob, b"the only one"),)

    async def wait_for_expected(self) -> None:
        pass

    def drop_expired(self) -> None:
        pass

    def listing(self, client: Client) -> IdentitiesAnswer:
        return IdentitiesAnswer(self.held)

    def listing_takes_long(self, client: Client) -> bool:
        return False

    def rules_take_long(self, client: Client) -> bool:
        return False

    async def apply_rules(self, client: Client) -> None: ...

    async def aside(self, call: Callable[[], T]) -> T:
        return call()

    async def was_bound(self, client: Client) -> None:
        raise NotImplementedError

    def wants_certificate(self, client: Client) -> bool:
        return False

    async def certify(self, client: Client) -> None:
        raise NotImplementedError

    async def sign(self, client: Client, request: SignRequest) -> tuple[bytes, Identity]:
        raise RequestRefusedError("it cannot sign", "use another one")

    async def add_key(self, client: Client, addition: KeyAddition) -> None:
        raise NotImplementedError

    def check_may_add_provider(self, client: Client) -> None:
        raise RequestRefusedError("no providers here")

    async def add_provider(
        self, client: Client, name: str, pin: Pin | None, constraints: tuple[Constraint, ...]
    ) -> None:
        raise NotImplementedError

    async def remove_provider(self, client: Client, name: str) -> None:
        raise NotImplementedError

    def remove_key(self, client: Client, blob: bytes) -> None:
        self.held = ()

    def remove_all(self) -> None:
        self.held = ()

    async def lock(self, passphrase: bytes | bytearray) -> None:
        self.locked = True

    async def unlock(self, client: Client, passphrase: bytes | bytearray) -> None:
        self.locked = False


async def ask(dispatcher: Dispatcher, message: bytes, client: Client = FORWARDED) -> Response:
    reply = dispatcher.answer(client, bytearray(message))
    return decode_response(reply if isinstance(reply, bytes) else await reply)


def test_handlers_need_no_more_than_the_interface() -> None:
    async def main() -> None:
        history = RefusalHistory()
        dispatcher = Dispatcher(OneKey(), history)
        listed = await ask(dispatcher, RequestIdentities().encode())
        assert listed == IdentitiesAnswer((ListedIdentity(KEY.blob, b"the only one"),))
        assert await ask(dispatcher, SignRequest(KEY.blob, b"data", 0).encode()) == Failure()
        assert [(one.request, one.reason, one.next_step) for one in history] == [
            ("SignRequest", "it cannot sign", "use another one")
        ]
        assert await ask(dispatcher, RemoveIdentity(KEY.blob).encode()) == Success()
        assert await ask(dispatcher, RequestIdentities().encode()) == IdentitiesAnswer(())

    run(main())


@pytest.mark.parametrize(
    "kind", [MessageType.ADD_SMARTCARD_KEY, MessageType.ADD_SMARTCARD_KEY_CONSTRAINED], ids=["20", "26"]
)
def test_a_client_that_may_not_ask_has_nothing_decoded_for_it(agent: AgentBench, kind: int) -> None:
    malformed = bytes([kind]) + b"\xff" * 200_000

    async def main() -> None:
        assert await ask(agent.dispatcher, malformed) == Failure()
        assert agent.reasons == ["a forwarded connection may not load PKCS#11 modules"]

    run(main())


def test_a_large_message_is_in_no_session_binds_way(
    agent: AgentBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = threading.Event()

    def slowly(message: bytearray, reader: object) -> KeyAddition:
        assert decoded.wait(20)
        raise ProtocolError("malformed")

    async def main() -> None:
        monkeypatch.setattr(KeyAddition, "_read", slowly)
        large = bytes([MessageType.ADD_IDENTITY]) + bytes(200_000)
        adding = asyncio.create_task(ask(agent.dispatcher, large))
        await settle()
        bind = Extension(SESSION_BIND, bind_of(KEY, b"session").encode()).encode()
        assert await ask(agent.dispatcher, bind) == Success()
        assert not adding.done()
        decoded.set()
        assert await adding == Failure()

    try:
        run(main())
    finally:
        decoded.set()


@pytest.mark.parametrize("unlocked", [False, True])
def test_what_waits_to_be_decoded_is_wiped_when_the_agent_is_locked(
    agent: AgentBench, monkeypatch: pytest.MonkeyPatch, unlocked: bool
) -> None:
    decoding, decoded = threading.Event(), threading.Event()

    def slowly(message: bytearray, reader: object) -> KeyAddition:
        decoding.set()
        assert decoded.wait(20)
        raise ProtocolError("malformed")

    async def main() -> None:
        monkeypatch.setattr(KeyAddition, "_read", slowly)
        messages = [bytearray([MessageType.ADD_IDENTITY]) + b"secret" * 20_000 for _ in range(3)]
        client = Client(Peer(os.getpid(), os.getuid()))
        adding = [asyncio.ensure_future(agent.dispatcher.answer(client, message)) for message in messages]
        await asyncio.to_thread(decoding.wait, 20)
        assert all(b"secret" in message for message in messages)
        assert await ask(agent.dispatcher, Lock(b"passphrase").encode()) == Success()
        assert not any(any(message) for message in messages)
        if unlocked:
            assert await ask(agent.dispatcher, Unlock(b"passphrase").encode()) == Success()
        decoded.set()
        assert [decode_response(await reply) for reply in adding] == [Failure()] * 3
        assert set(agent.reasons) == {"the agent is locked"}

    try:
        run(main())
    finally:
        decoded.set()


@pytest.mark.parametrize("kind", [*MessageType, 200], ids=str)
def test_a_locked_agent_decodes_nothing_that_it_does_not_do(agent: AgentBench, kind: int) -> None:
    done = (
        MessageType.REQUEST_IDENTITIES, MessageType.UNLOCK, MessageType.EXTENSION,
        # No requests: the reason is that.
        *(number for number in MessageType if not _is_request(number)), 200,
    )  # fmt: skip

    async def main() -> None:
        await agent.keyring.lock(b"secret")
        await ask(agent.dispatcher, bytes([kind]) + b"\xff" * 100)
        assert (agent.reasons == ["the agent is locked"]) == (kind not in done)

    run(main())


def _is_request(number: int) -> bool:
    return number in (
        MessageType.REQUEST_IDENTITIES,
        MessageType.SIGN_REQUEST,
        MessageType.ADD_IDENTITY,
        MessageType.ADD_ID_CONSTRAINED,
        MessageType.ADD_SMARTCARD_KEY,
        MessageType.ADD_SMARTCARD_KEY_CONSTRAINED,
        MessageType.REMOVE_SMARTCARD_KEY,
        MessageType.REMOVE_IDENTITY,
        MessageType.REMOVE_ALL_IDENTITIES,
        MessageType.REMOVE_ALL_RSA1_IDENTITIES,
        MessageType.LOCK,
        MessageType.UNLOCK,
        MessageType.EXTENSION,
    )
