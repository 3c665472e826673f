"""A key on several tokens, and what happens to one of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from doubles.agent_bench import WORK_KEY, AgentBench
from doubles.stand_ins import Key, Person, StandInToken, lost, run
from doubles.token_bench import LOCKED

from replug.protocol.messages import Failure, RemoveAllIdentities, SignResponse, Success
from replug.token.errors import ModuleUnreachableError


def two_with_one_key(
    monkeypatch: pytest.MonkeyPatch, folder: Path, person: Person | None = None
) -> tuple[AgentBench, StandInToken, Key]:
    key = Key("both")
    first, second = (StandInToken(key, label=label, serial=label) for label in ("first", "second"))
    return AgentBench(monkeypatch, folder, first, second, person=person), first, key


def test_a_locked_token_does_not_stand_in_the_way_of_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        agent, first, key = two_with_one_key(monkeypatch, tmp_path)
        for label in ("first", "second"):
            assert await agent.add(provider=agent.uri(f"token={label}")) == Success()
        first.flags = LOCKED
        for worker in agent.slots.workers:
            worker.kill()
        assert isinstance(await agent.sign(key), SignResponse)

    run(main())


def test_nobody_is_asked_for_a_pin_while_another_token_is_ready(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        person = Person(None)
        agent, _, key = two_with_one_key(monkeypatch, tmp_path, person)
        await agent.add(provider=agent.uri("token=first"), pin=b"")
        await agent.add(provider=agent.uri("token=second"))
        assert isinstance(await agent.sign(key), SignResponse)
        assert person.requests == []

    run(main())


def test_a_token_that_is_out_is_not_listed_again_because_its_module_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        agent = AgentBench(monkeypatch, tmp_path, StandInToken(WORK_KEY))
        await agent.add()
        agent.slots.tokens.clear()
        (module,) = agent.keyring.modules()
        await module.look()
        agent.slots.fail_next("slots", lost(), lost())
        with pytest.raises(ModuleUnreachableError):
            await module.look()
        assert await agent.listed() == []

    run(main())


def test_removing_all_forgets_the_pin_of_a_login_under_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        token = StandInToken(WORK_KEY)
        agent = AgentBench(monkeypatch, tmp_path, token)
        gate = agent.slots.hold_next("login")
        adding = asyncio.create_task(agent.add())
        await gate.entered.wait()
        assert await agent.ask(RemoveAllIdentities()) == Success()
        # It keeps the token served, though everything was removed.
        again = asyncio.create_task(agent.add(pin=b"", provider=agent.uri("token=work")))
        while len(agent.keyring._modules._being_added) < 2:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.001)
        gate.opened.set()
        assert await adding == Failure()
        assert await again == Success()
        assert agent.remembered(token) is None

    run(main())


def test_adding_goes_on_when_the_client_hangs_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def main() -> None:
        token = StandInToken(WORK_KEY)
        agent = AgentBench(monkeypatch, tmp_path, token)
        gate = agent.slots.hold_next("login")
        adding = asyncio.create_task(agent.add())
        await gate.entered.wait()
        adding.cancel()
        gate.opened.set()
        while not await agent.listed():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.001)
        pin = agent.remembered(token)
        assert pin is not None
        assert (pin.verified, bool(pin.value)) == (True, True)

    run(main())
