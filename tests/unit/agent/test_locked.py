"""Connections and times at which less is allowed: forwarded clients, and a locked agent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from doubles.agent_bench import LOGIN_KEY, AgentBench
from doubles.stand_ins import PIN, Key, StandInToken, run, settle

from replug.agent.config.options import Options
from replug.protocol.decoding import Request
from replug.protocol.extensions import SESSION_BIND
from replug.protocol.messages import (
    AddIdentity,
    AddSmartcardKey,
    Extension,
    ExtensionFailure,
    Failure,
    Lock,
    RemoveAllIdentities,
    RemoveAllRsa1Identities,
    RemoveIdentity,
    RemoveSmartcardKey,
    SignRequest,
    SignResponse,
    Success,
    Unlock,
)
from replug.protocol.private_keys import Ed25519PrivateKey

UNKNOWN = Key("unknown")
SOFTWARE_KEY = Ed25519PrivateKey(UNKNOWN.public, bytes(32))  # type: ignore[arg-type]


# Forwarded connections.


def test_a_forwarded_connection_may_not_load_modules(agent: AgentBench) -> None:
    async def main() -> None:
        forwarded = agent.new_client()
        await agent.ask(Extension(SESSION_BIND, b"nonsense"), forwarded)
        request = AddSmartcardKey(str(agent.module).encode(), PIN)
        assert await agent.ask(request, forwarded) == Failure()
        assert agent.reasons[1:] == ["a forwarded connection may not load PKCS#11 modules"]
        assert agent.slots.calls == []
        # That says nothing about other connections.
        assert await agent.ask(request) == Success()

    run(main())


def test_a_forwarded_connection_may_load_modules_if_the_agent_was_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        options = Options(provider_patterns="*", allow_remote_pkcs11=True)
        agent = AgentBench(monkeypatch, tmp_path, StandInToken(LOGIN_KEY), options=options)
        await agent.ask(Extension(SESSION_BIND, b"nonsense"))
        assert await agent.add() == Success()

    run(main())


# A locked agent.

WHILE_LOCKED: list[Request] = [
    SignRequest(LOGIN_KEY.blob, b"data", 0),
    RemoveIdentity(LOGIN_KEY.blob),
    RemoveAllIdentities(),
    RemoveAllRsa1Identities(),
    AddSmartcardKey(b"/lib/module.so", PIN),
    RemoveSmartcardKey(b"/lib/module.so", b""),
    AddIdentity(SOFTWARE_KEY, b""),
    Lock(b"secret"),
    Extension("unknown@example.com", b""),
]


@pytest.mark.parametrize("request_", WHILE_LOCKED, ids=lambda request: type(request).__name__)
def test_a_locked_agent_refuses(agent: AgentBench, request_: Request) -> None:
    async def main() -> None:
        await agent.add()
        assert await agent.ask(Lock(b"secret")) == Success()
        before = list(agent.slots.calls)
        assert await agent.ask(request_) == Failure()
        assert agent.reasons == ["the agent is locked"]
        assert agent.slots.calls == before
        assert await agent.listed() == []
        # Unlocked it is as it was.
        assert await agent.ask(Unlock(b"secret")) == Success()
        assert await agent.listed() == ["login"]
        assert isinstance(await agent.sign(LOGIN_KEY), SignResponse)

    run(main())


def test_a_locked_agent_still_learns_which_connection_is_forwarded(agent: AgentBench) -> None:
    async def main() -> None:
        await agent.ask(Lock(b"secret"))
        assert await agent.ask(Extension(SESSION_BIND, b"")) == ExtensionFailure()
        await agent.ask(Unlock(b"secret"))
        assert await agent.add() == Failure()
        assert agent.reasons[1:] == ["a forwarded connection may not load PKCS#11 modules"]

    run(main())


def test_what_ends_in_a_locked_agent_is_refused(agent: AgentBench) -> None:
    """Its beginning was before; but who locks the agent and goes is not there to touch the token."""

    async def main() -> None:
        await agent.add()
        gate = agent.slots.hold_next("sign")
        signing = asyncio.create_task(agent.sign(LOGIN_KEY))
        await gate.entered.wait()
        assert await agent.ask(Lock(b"secret")) == Success()
        gate.opened.set()
        assert await signing == Failure()
        assert agent.reasons == ["the agent was locked meanwhile"]

    run(main())


def test_who_waits_for_a_token_while_the_agent_is_locked_has_nobody_asked(agent: AgentBench) -> None:
    """The PINs are put away, and a locked agent must not get another."""

    async def main() -> None:
        await agent.add()
        gate = agent.slots.hold_next("sign")
        first = asyncio.create_task(agent.sign(LOGIN_KEY))
        await gate.entered.wait()
        waiting = [
            asyncio.create_task(agent.ask(SignRequest(LOGIN_KEY.blob, b"data", 0), agent.new_client())),
            asyncio.create_task(agent.add()),
        ]
        await settle()
        assert await agent.ask(Lock(b"secret")) == Success()
        sent = len(agent.slots.pins_sent)
        gate.opened.set()
        assert [await first, *[await one for one in waiting]] == [Failure()] * 3
        assert agent.person.requests == []
        assert len(agent.slots.pins_sent) == sent
        assert not any(worker.ready for worker in agent.slots.processes if worker.alive)
        await agent.ask(Unlock(b"secret"))
        assert isinstance(await agent.sign(LOGIN_KEY), SignResponse)
        assert agent.person.requests == []

    run(main())


def test_nothing_is_added_to_an_agent_that_was_locked_meanwhile(agent: AgentBench) -> None:
    async def main() -> None:
        gate = agent.slots.hold_next("scan")
        adding = asyncio.create_task(agent.add())
        await gate.entered.wait()
        assert await agent.ask(Lock(b"secret")) == Success()
        gate.opened.set()
        assert await adding == Failure()
        await agent.ask(Unlock(b"secret"))
        assert await agent.listed() == []
        assert agent.remembered(agent.slots.tokens[0]) is None

    run(main())
