"""Keys on several tokens, and tokens that are out."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from doubles.agent_bench import LOGIN_KEY, WORK_KEY, AgentBench, processes_left
from doubles.stand_ins import PIN, WRONG_PIN, Person, StandInToken, run, settle

from replug.agent.config.model import Config
from replug.agent.config.options import Options
from replug.protocol.constraints import Lifetime
from replug.protocol.messages import Failure, RemoveIdentity, SignResponse, Success
from replug.token.serving.served import ServedToken


def served(agent: AgentBench, token: StandInToken) -> ServedToken:
    return next(module.tokens[token.identity] for module in agent.keyring.modules())


async def look(agent: AgentBench) -> None:
    """As the watcher does."""
    for module in agent.keyring.modules():
        await module.look()


def patient(
    monkeypatch: pytest.MonkeyPatch, folder: Path, patience: float, *tokens: StandInToken
) -> AgentBench:
    """An agent whose requests wait for absent tokens, for so many seconds."""
    options = Options(provider_patterns="*", config=Config(wait_for_token=patience))
    return AgentBench(monkeypatch, folder, *tokens, options=options)


def test_any_token_that_holds_the_key_signs_with_its_own_pin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        first, second = StandInToken(WORK_KEY), StandInToken(WORK_KEY, serial="2")
        second.pin = b"second"
        agent = AgentBench(monkeypatch, tmp_path, first, second)
        await agent.add(provider=agent.uri("serial=1"))
        await agent.add(provider=agent.uri("serial=2"), pin=b"second")
        assert isinstance(await agent.sign(WORK_KEY), SignResponse)
        # Nobody has noticed yet that it is out.
        agent.slots.tokens.remove(first)
        for process in agent.slots.processes:
            process.kill()
        assert served(agent, first).present
        assert isinstance(await agent.sign(WORK_KEY), SignResponse)
        assert agent.slots.logins == [PIN, b"second", PIN, b"second"]
        agent.slots.tokens.clear()
        for process in agent.slots.processes:
            process.kill()
        assert await agent.sign(WORK_KEY) == Failure()

    run(main())


def test_a_pin_that_one_token_rejects_is_not_tried_on_another_with_the_same_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        first, second = StandInToken(WORK_KEY), StandInToken(WORK_KEY, serial="2")
        agent = AgentBench(monkeypatch, tmp_path, first, second, person=Person(WRONG_PIN, b"2", b"3"))
        await agent.add(pin=b"")
        assert await agent.sign(WORK_KEY) == Failure()
        assert agent.slots.logins == [WRONG_PIN, b"2", b"3"]
        assert {request.token.serial for request in agent.person.requests} == {"1"}
        assert agent.reasons == ['token "work" (serial 1): the PIN is wrong']

    run(main())


def test_without_patience_a_request_for_an_absent_token_is_refused(one: AgentBench) -> None:
    async def main() -> None:
        await one.add()
        one.slots.tokens.clear()
        await look(one)
        assert await one.listed() == []
        assert await one.sign(WORK_KEY) == Failure()
        assert one.reasons == ['token "work" (serial 1) is in no slot']

    run(main())


def test_a_patient_request_waits_until_the_token_is_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, work: StandInToken
) -> None:
    async def main() -> None:
        agent = patient(monkeypatch, tmp_path, 60, work)
        await agent.add()
        agent.slots.tokens.clear()
        await look(agent)
        signing = asyncio.create_task(agent.sign(WORK_KEY))
        await settle()
        assert not signing.done()
        agent.slots.tokens.append(work)
        await look(agent)
        assert isinstance(await signing, SignResponse)
        assert agent.slots.logins == [PIN, PIN]

    run(main())


def test_any_token_with_the_key_ends_the_wait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def main() -> None:
        first, second = StandInToken(WORK_KEY), StandInToken(WORK_KEY, serial="2")
        agent = patient(monkeypatch, tmp_path, 60, first, second)
        await agent.add(provider=agent.uri("serial=1"))
        await agent.add(provider=agent.uri("serial=2"))
        agent.slots.tokens.clear()
        await look(agent)
        signing = asyncio.create_task(agent.sign(WORK_KEY))
        await settle()
        agent.slots.tokens.append(second)
        await look(agent)
        assert isinstance(await signing, SignResponse)

    run(main())


def test_a_patient_request_is_refused_in_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, work: StandInToken
) -> None:
    async def main() -> None:
        agent = patient(monkeypatch, tmp_path, 0.01, work)
        await agent.add()
        agent.slots.tokens.clear()
        await look(agent)
        assert await agent.sign(WORK_KEY) == Failure()
        assert agent.reasons == ['token "work" (serial 1) is in no slot']

    run(main())


def test_removing_refuses_who_waits_for_a_tokens_return(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, work: StandInToken
) -> None:
    async def main() -> None:
        agent = patient(monkeypatch, tmp_path, 60, work)
        await agent.add()
        agent.slots.tokens.clear()
        await look(agent)
        signing = asyncio.create_task(agent.sign(WORK_KEY))
        await settle()
        assert await agent.remove() == Success()
        assert await asyncio.wait_for(signing, 5) == Failure()
        assert processes_left(agent) == 0

    run(main())


@pytest.mark.parametrize("how", ["removed", "expired"])
def test_a_key_that_goes_while_the_pin_is_asked_for_does_not_sign(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, work: StandInToken, how: str
) -> None:
    """Its token stays, for its other keys."""

    async def main() -> None:
        now = [1000.0]
        monkeypatch.setattr("replug.agent.keyring.boottime", lambda: now[0])
        work.keys.append(LOGIN_KEY)
        agent = AgentBench(monkeypatch, tmp_path, work, person=Person(PIN))
        await agent.add(*[Lifetime(60)] * (how == "expired"), pin=b"")
        await agent.add(provider=agent.uri("object=login"), pin=b"")
        answered = asyncio.Event()
        agent.person.may_answer = answered.wait()
        signing = asyncio.create_task(agent.sign(WORK_KEY))
        await agent.person.asked.wait()
        if how == "removed":
            assert await agent.ask(RemoveIdentity(WORK_KEY.blob)) == Success()
        else:
            now[0] += 61
        answered.set()
        assert await signing == Failure()
        assert "is not in the agent" in agent.reasons[-1]

    run(main())
