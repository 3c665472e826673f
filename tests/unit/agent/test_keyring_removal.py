"""Providers that go: by request, or at the end of their lifetime; and who still waited for them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from doubles.agent_bench import WORK_KEY, AgentBench, processes_left
from doubles.session_hosts import bind_of
from doubles.stand_ins import PIN, Key, StandInToken, run, settle

from replug.agent.config.options import Options
from replug.agent.keys import expiry as expiry_module
from replug.protocol.constraints import Lifetime
from replug.protocol.extensions import SESSION_BIND
from replug.protocol.messages import (
    Extension,
    Failure,
    RemoveAllIdentities,
    RemoveSmartcardKey,
    SignResponse,
    Success,
)

# Removing.


def test_removing_a_module_removes_all_that_was_added_of_it(two: AgentBench) -> None:
    async def main() -> None:
        await two.add(provider=two.uri("token=home"), pin=b"")
        await two.add(provider=two.uri("token=work"), pin=b"")
        assert await two.remove() == Success()
        assert await two.listed() == []
        assert two.keyring.modules() == []
        assert processes_left(two) == 0
        assert await two.remove() == Failure()

    run(main())


def test_what_has_expired_can_be_removed_once(one: AgentBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with ssh-agent, which goes on to know the module."""

    async def main() -> None:
        await one.add(Lifetime(10))
        await one.add(Lifetime(10), provider=one.uri("token=work"))
        later = one.keyring.identities.now() + 11
        monkeypatch.setattr(one.keyring.changes, "clock", lambda: later)
        assert await one.listed() == []
        assert one.keyring.identities.providers() == []
        assert await one.remove(one.uri("token=other")) == Failure()
        assert await one.remove() == Success()
        assert await one.remove() == Failure()
        await one.add()
        await one.ask(RemoveAllIdentities())
        assert await one.remove() == Failure()

    run(main())


def test_removing_a_uri_removes_that_choice_and_forgets_its_pin(
    two: AgentBench, work: StandInToken, home: StandInToken
) -> None:
    async def main() -> None:
        await two.add(provider=two.uri("token=home"))
        await two.add(provider=two.uri("token=work"))
        pin = two.remembered(home)
        assert pin is not None
        assert await two.remove(two.uri("token=absent")) == Failure()
        assert await two.remove(two.uri("token=home")) == Success()
        assert await two.listed() == ["work key"]
        assert pin.value == b""
        assert two.remembered(work) is not None
        assert isinstance(await two.sign(WORK_KEY), SignResponse)

    run(main())


def test_a_forwarded_host_has_no_file_system_asked(one: AgentBench, tmp_path: Path) -> None:
    """It would have folders mounted here, or find out what is there. By its name it removes what it likes."""
    link = tmp_path / "link.so"
    link.symlink_to(one.module)
    by_link = RemoveSmartcardKey(str(link).encode(), b"")

    async def main() -> None:
        await one.add(pin=b"")
        far = one.new_client()
        await one.ask(Extension(SESSION_BIND, bind_of(Key(), b"s", forwarding=True).encode()), far)
        assert await one.ask(by_link, far) == Failure()
        assert await one.ask(by_link) == Success()
        await one.add(pin=b"")
        assert await one.ask(RemoveSmartcardKey(str(one.module).encode(), b""), far) == Success()
        assert await one.listed() == []

    run(main())


def test_a_token_that_another_provider_chooses_too_is_kept(one: AgentBench, work: StandInToken) -> None:
    async def main() -> None:
        await one.add(pin=b"")
        await one.add(provider=one.uri("token=work"))
        assert await one.remove(one.uri("token=work")) == Success()
        assert await one.listed() == ["work key"]
        assert one.remembered(work) is not None

    run(main())


def test_removing_refuses_who_waits(one: AgentBench) -> None:
    async def main() -> None:
        await one.add()
        gate = one.slots.hold_next("sign")
        waiting = [asyncio.create_task(one.sign(WORK_KEY)) for _ in range(3)]
        await gate.entered.wait()
        assert await one.remove() == Success()
        gate.opened.set()
        assert await asyncio.gather(*waiting) == [Failure()] * 3
        assert len(one.reasons) == 3
        assert processes_left(one) == 0
        assert one.slots.logins == [PIN]

    run(main())


def test_removing_all_forgets_every_pin(two: AgentBench, work: StandInToken, home: StandInToken) -> None:
    async def main() -> None:
        await two.add(provider=two.uri("token=home"))
        await two.add(provider=two.uri("token=work"))
        pins = [two.remembered(token) for token in (work, home)]
        assert await two.ask(RemoveAllIdentities()) == Success()
        assert [pin and pin.value for pin in pins] == [b"", b""]
        assert processes_left(two) == 0

    run(main())


def test_removing_all_forgets_pins_though_something_is_just_being_added(
    one: AgentBench, work: StandInToken
) -> None:
    async def main() -> None:
        await one.add()
        gate = one.slots.hold_next("scan")
        adding = asyncio.create_task(one.add(pin=b"", provider=one.uri("token=work")))
        await gate.entered.wait()
        assert await one.ask(RemoveAllIdentities()) == Success()
        assert one.remembered(work) is None
        gate.opened.set()
        # What was removed does not come back by it, either.
        assert await adding == Failure()
        assert await one.listed() == []
        assert processes_left(one) == 0

    run(main())


def test_forgetting_pins_keeps_the_keys(one: AgentBench) -> None:
    async def main() -> None:
        one.person.answers.append(PIN)
        await one.add()
        assert one.keyring.forget_pins() == 1
        assert await one.listed() == ["work key"]
        assert one.keyring.forget_pins() == 0
        assert isinstance(await one.sign(WORK_KEY), SignResponse)

    run(main())


def test_two_who_add_the_same_at_once(one: AgentBench) -> None:
    async def main() -> None:
        assert await asyncio.gather(one.add(), one.add()) == [Success(), Success()]
        assert await one.listed() == ["work key"]
        assert len(one.slots.alive) == 1

    run(main())


def test_a_failed_addition_takes_nothing_from_another(one: AgentBench) -> None:
    async def main() -> None:
        results = await asyncio.gather(one.add(provider=one.uri("token=absent")), one.add())
        assert results == [Failure(), Success()]
        assert isinstance(await one.sign(WORK_KEY), SignResponse)
        # Twice if the failed one came second: it has looked with a fresh worker.
        assert set(one.slots.logins) == {PIN}

    run(main())


# Lifetimes.


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_expired_key_is_gone_at_the_next_request(one: AgentBench) -> None:
    async def main() -> None:
        clock = one.keyring.changes.clock = Clock()
        await one.add(Lifetime(10))
        clock.now = 9
        assert isinstance(await one.sign(WORK_KEY), SignResponse)
        clock.now = 10
        assert await one.sign(WORK_KEY) == Failure()
        assert await one.listed() == []
        assert processes_left(one) == 0

    run(main())


def test_keys_expire_and_pins_are_forgotten_though_nobody_asks(
    one: AgentBench, work: StandInToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine slept meanwhile: timers stood still, lifetimes did not."""

    async def main() -> None:
        monkeypatch.setattr(expiry_module, "_LONGEST_SLEEP", 0.001)
        clock = one.keyring.changes.clock = Clock()
        await one.add(Lifetime(3600))
        pin = one.remembered(work)
        assert pin is not None
        clock.now = 4000
        async with asyncio.timeout(10):
            while one.keyring.modules():  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0.001)
        assert pin.value == b""
        assert processes_left(one) == 0

    run(main())


@pytest.mark.parametrize(
    ("requested", "default", "expiry"), [(None, 0, None), (None, 60, 60), (10, 60, 10), (10, 0, 10)]
)
def test_a_lifetime_of_its_own_comes_before_the_default(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    work: StandInToken,
    requested: int | None,
    default: int,
    expiry: int | None,
) -> None:
    async def main() -> None:
        options = Options(provider_patterns="*", default_lifetime=default)
        agent = AgentBench(monkeypatch, tmp_path, work, options=options)
        agent.keyring.changes.clock = Clock()
        await agent.add(*[Lifetime(requested)] if requested else [])
        assert agent.keyring.identities.next_expiry() == expiry

    run(main())


def test_a_request_under_way_when_its_key_expires_is_refused(one: AgentBench) -> None:
    async def main() -> None:
        clock = one.keyring.changes.clock = Clock()
        await one.add(Lifetime(10))
        gate = one.slots.hold_next("sign")
        signing = asyncio.create_task(one.sign(WORK_KEY))
        await gate.entered.wait()
        clock.now = 10
        await one.listed()
        gate.opened.set()
        assert await signing == Failure()
        await settle()
        assert processes_left(one) == 0

    run(main())
