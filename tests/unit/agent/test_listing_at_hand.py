"""The list of keys that a client got last is sent again as long as nothing has changed, and no longer.

Every other test of a handler compares the list at hand with the one that is made (`AgentBench.ask`).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from doubles.agent_bench import AgentBench
from doubles.session_hosts import bind_of
from doubles.stand_ins import Key, StandInToken, run

from replug.agent.clients.view import View
from replug.agent.config.socket_entry import SocketEntry
from replug.agent.dispatch import Conversation
from replug.protocol.constraints import Lifetime
from replug.protocol.decoding import Request
from replug.protocol.extensions import SESSION_BIND
from replug.protocol.framing import frame
from replug.protocol.messages import (
    Extension,
    IdentitiesAnswer,
    Lock,
    RemoveIdentity,
    RequestIdentities,
    Unlock,
)

ONE = Key("one")
EMPTY = frame(IdentitiesAnswer(()).encode())


class Bench(AgentBench):
    """An agent with one key, and a clock that stands still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.now = 1000.0
        monkeypatch.setattr("replug.agent.keyring.boottime", lambda: self.now)
        self.token = StandInToken(ONE)
        super().__init__(monkeypatch, folder, self.token)

    def conversation(self, view: View | None = None) -> Conversation:
        return Conversation(self.dispatcher, self.keyring.changes, self.new_client(view))


async def said(conversation: Conversation, request: Request) -> bytes:
    """The frame of the reply."""
    reply = conversation.answer(bytearray(request.encode()))
    return frame(reply if isinstance(reply, bytes) else await reply)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    return Bench(monkeypatch, tmp_path)


def test_while_nothing_changes_it_is_at_hand_and_kept_once_for_all(bench: Bench) -> None:
    async def main() -> None:
        await bench.add()
        one, other = bench.conversation(), bench.conversation()
        assert one.listing_at_hand() == b""
        listing = await said(one, RequestIdentities())
        assert one.listing_at_hand() == other.listing_at_hand() == listing
        await said(other, Extension(SESSION_BIND, bind_of(Key("server"), b"session").encode()))
        assert other.listing_at_hand() == b""
        assert await said(other, RequestIdentities()) == listing
        assert other.listing_at_hand() is one.listing_at_hand()
        # What a forwarded client sees is its own; kept with each, it would fill the memory.
        forwarded, bind = bench.conversation(), bind_of(Key("server"), b"session", forwarding=True)
        await said(forwarded, Extension(SESSION_BIND, bind.encode()))
        assert await said(forwarded, RequestIdentities()) == listing
        assert forwarded.listing_at_hand() == b""
        assert one.listing_at_hand() == listing

    run(main())


def test_at_a_socket_for_some_of_the_keys(bench: Bench) -> None:
    """Its clients share theirs, bound or not; another socket's do not, nor the agent's own."""

    async def main() -> None:
        await bench.add()
        shows, hides = View(SocketEntry("/a", ("one",))), View(SocketEntry("/b", ("other",)))
        own, one, other, none = map(bench.conversation, (None, shows, shows, hides))
        bind = Extension(SESSION_BIND, bind_of(Key("server"), b"session").encode())
        for conversation, listing in ((none, EMPTY), (one, await said(own, RequestIdentities()))):
            assert conversation.listing_at_hand() == b""
            assert await said(conversation, RequestIdentities()) == listing
            assert conversation.listing_at_hand() == listing
            await said(conversation, bind)
            assert conversation.listing_at_hand() == listing
        assert listing != EMPTY
        assert other.listing_at_hand() == listing
        # Another configuration has the entry replaced, which counts as a change.
        shows.entry = SocketEntry("/a", ("one",), hosts=("server",))
        bench.keyring.changes.count += 1
        assert one.listing_at_hand() == other.listing_at_hand() == b""
        assert await said(other, RequestIdentities()) == EMPTY
        assert own.listing_at_hand() == b""

    run(main())


@pytest.mark.parametrize("request_", [RemoveIdentity(ONE.blob), Lock(b"secret")])
def test_any_client_may_change_it(bench: Bench, request_: Request) -> None:
    async def main() -> None:
        await bench.add()
        one = bench.conversation()
        await said(one, RequestIdentities())
        await bench.ask(request_)
        assert one.listing_at_hand() == b""
        assert await said(one, RequestIdentities()) == EMPTY
        assert one.listing_at_hand() == EMPTY
        if isinstance(request_, Lock):
            await bench.ask(Unlock(b"secret"))
            assert one.listing_at_hand() == b""
            assert await said(one, RequestIdentities()) != EMPTY

    run(main())


def test_it_ends_with_a_lifetime_to_the_moment(bench: Bench) -> None:
    async def main() -> None:
        await bench.add(Lifetime(60))
        one = bench.conversation()
        await said(one, RequestIdentities())
        bench.now += 59.9
        assert one.listing_at_hand() != b""
        bench.now += 0.1
        assert one.listing_at_hand() == b""
        assert await said(one, RequestIdentities()) == EMPTY

    run(main())


def test_a_client_that_binds_a_session_is_listed_what_it_may_see_then(bench: Bench) -> None:
    async def main() -> None:
        await bench.add()
        one = bench.conversation()
        await said(one, RequestIdentities())
        bind = bind_of(Key("server"), b"session").encode()
        await said(one, Extension(SESSION_BIND, bind))
        assert one.listing_at_hand() == b""

    run(main())


def test_while_a_token_is_out_its_module_learns_of_each_listing(bench: Bench) -> None:
    async def main() -> None:
        await bench.add()
        bench.slots.tokens.remove(bench.token)
        [module] = bench.keyring.modules()
        await module.look()
        one = bench.conversation()
        assert await said(one, RequestIdentities()) == EMPTY
        assert one.listing_at_hand() == b""

    run(main())


def test_a_refusal_is_not_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        def fail(*_: object) -> None:
            raise MemoryError

        one = bench.conversation()
        monkeypatch.setattr(bench.keyring.identities.shown, "answer", fail)
        await said(one, RequestIdentities())
        assert one.listing_at_hand() == b""

    run(main())
