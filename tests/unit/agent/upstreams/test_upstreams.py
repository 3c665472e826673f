"""For whom other agents are asked, and what the rules of the configuration say of their keys."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.agent_bench import AgentBench
from doubles.stand_ins import Key, run
from rigs.agent import FAILURE, frame
from rigs.other_agent import Asked, OtherAgent

from replug.agent.clients.client import Client
from replug.agent.clients.peer import Peer
from replug.agent.config.ca_entry import CaEntry
from replug.agent.config.model import Config
from replug.agent.config.options import Options
from replug.agent.upstreams import connecting
from replug.protocol.extensions import SESSION_BIND
from replug.protocol.keys import fingerprint
from replug.protocol.messages import (
    Extension,
    Failure,
    IdentitiesAnswer,
    ListedIdentity,
    RequestIdentities,
    SignRequest,
)

PLAIN, CA = Key("plain"), Key("ca")
LISTED = [ListedIdentity(key.blob, b"other") for key in (PLAIN, CA)]
LIST = RequestIdentities().encode()


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OtherAgent]:
    """One that lists both keys, and signs nothing."""
    monkeypatch.setattr(connecting, "credentials", lambda _: (1, os.geteuid()))  # it is in this process

    def behave(asked: Asked) -> None:
        while True:
            is_list = asked.request() == LIST
            asked.socket.sendall(frame(IdentitiesAnswer(tuple(LISTED)).encode() if is_list else FAILURE))

    agent = OtherAgent(tmp_path / "other.sock", behave)
    yield agent
    agent.stop()


def bench_before(other: OtherAgent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AgentBench:
    ca = CaEntry(fingerprint(CA.blob), 60, ("me",))
    return AgentBench(
        monkeypatch, tmp_path, options=Options(config=Config(upstreams=(str(other.path),), cas=(ca,)))
    )


def test_guests_get_nothing_of_them(
    other: OtherAgent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        bench = bench_before(other, monkeypatch, tmp_path)
        await bench.keyring.first_scan.wait()
        guest = Client(Peer(os.getpid(), 12345))
        assert guest.guest is not None
        assert not bench.keyring.upstreams.asks_for(guest)
        assert bench.keyring.listing(guest).identities == ()
        assert await bench.keyring.upstreams.holding(guest, PLAIN.blob) == []
        assert other.asked == []
        listed = await bench.ask(RequestIdentities())
        assert listed == IdentitiesAnswer(tuple(LISTED))

    run(main())


def test_a_ca_key_is_one_there_too(
    other: OtherAgent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        bench = bench_before(other, monkeypatch, tmp_path)
        await bench.keyring.first_scan.wait()
        assert await bench.ask(RequestIdentities()) == IdentitiesAnswer(tuple(LISTED))
        for key in (PLAIN, CA):
            assert await bench.ask(SignRequest(key.blob, b"data", 0)) == Failure()
        [asked] = other.asked
        assert asked.requests == [LIST, SignRequest(PLAIN.blob, b"data", 0).encode()]
        assert [refusal.reason for refusal in bench.history] == [
            f"the agent at {other.path} did not sign, and gives no reason",
            f"key {fingerprint(CA.blob)} is a CA key: it signs certificates and nothing else",
        ]

        bound = bench.new_client()
        await bench.ask(Extension(SESSION_BIND, b"whatever"), bound)
        assert await bench.ask(RequestIdentities(), bound) == IdentitiesAnswer((LISTED[0],))
        assert await bench.ask(RequestIdentities()) == IdentitiesAnswer(tuple(LISTED))

    run(main())


def test_nothing_is_kept_for_a_client_that_is_gone(
    other: OtherAgent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What a client has asked last begins, to be cancelled, when its connection is over."""

    async def main() -> None:
        bench = bench_before(other, monkeypatch, tmp_path)
        client, upstreams = bench.new_client(), bench.keyring.upstreams
        upstreams.gone(client)
        upstreams.bind_comes(client, b"whatever")
        await upstreams.ask(client)
        kept = weakref.ref(client)
        del client
        gc.collect()
        assert kept() is None

    run(main())
