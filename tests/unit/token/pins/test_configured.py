"""A PIN that nobody types: read from a file, and sent no more often than a person would."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from doubles.stand_ins import PIN, WRONG_PIN, Key, Person, StandInToken, lost, run
from doubles.token_bench import COUNT_LOW, FINAL_TRY, KEYPAD, Bench, bench, careful_token

from replug.token.errors import PinRejectedError, TokenError
from replug.token.identity import TokenFlag, TokenId
from replug.token.names.pin_source import PinSource, SourceKind
from replug.token.pins.lifetime import ForgetOn
from replug.token.pins.pin import Pin
from replug.token.pins.policy import PinPolicy
from replug.token.pins.source import ConfiguredPin
from replug.token.seal import Seal


class PinFile(ConfiguredPin):
    """A file with a PIN; keeps what was read of it, and lets something happen before it has been."""

    def __init__(self, path: Path, pin: bytes = PIN) -> None:
        super().__init__(PinSource(SourceKind.FILE, str(path)), {})
        self.path = path
        self.pins: list[Pin] = []
        self.before: Callable[[], object] = lambda: None
        self.write(pin)

    def write(self, pin: bytes) -> None:
        new = self.path.with_name("new")
        new.touch(mode=0o600)
        new.write_bytes(pin)
        new.replace(self.path)

    def read(self, token: TokenId) -> Pin:
        self.before()
        self.pins.append(super().read(token))
        return self.pins[-1]

    @property
    def in_memory(self) -> int:
        """How many of the PINs read are still there."""
        return sum(bool(pin.value) for pin in self.pins)


@pytest.fixture
def file(tmp_path: Path) -> PinFile:
    return PinFile(tmp_path / "pin")


def with_file(
    monkeypatch: pytest.MonkeyPatch,
    file: PinFile,
    token: StandInToken | None = None,
    person: Person | None = None,
) -> Bench:
    return bench(monkeypatch, token, person, policy=PinPolicy(source=file))


def test_it_is_read_once_and_remembered(monkeypatch: pytest.MonkeyPatch, file: PinFile) -> None:
    async def main() -> None:
        served = with_file(monkeypatch, file)
        await served.sign()
        served.lose_worker()
        await served.sign()
        assert (served.slots.logins, len(file.pins)) == ([PIN, PIN], 1)

    run(main())


def test_once_forgotten_it_is_read_again(monkeypatch: pytest.MonkeyPatch, file: PinFile) -> None:
    async def main() -> None:
        served = with_file(monkeypatch, file)
        await served.sign()
        served.served.forget_pin()
        assert file.in_memory == 0
        await served.sign()
        assert served.slots.logins == [PIN, PIN]

    run(main())


def test_a_wrong_one_costs_one_try(monkeypatch: pytest.MonkeyPatch, file: PinFile) -> None:
    async def main() -> None:
        file.write(WRONG_PIN)
        served = with_file(monkeypatch, file)
        with pytest.raises(PinRejectedError, match="write the right PIN to where pin_source points"):
            await served.sign()
        for _ in range(2):
            with pytest.raises(TokenError, match="refused the PIN in file:"):
                await served.sign()
        assert (served.slots.pins_sent, file.in_memory) == ([WRONG_PIN], 0)
        file.write(PIN)
        served.token.flags = COUNT_LOW
        await served.sign()
        assert served.slots.pins_sent == [WRONG_PIN, PIN]

    run(main())


def test_a_wrong_one_costs_no_other_try_when_only_the_file_is_another(
    monkeypatch: pytest.MonkeyPatch, file: PinFile
) -> None:
    """A backup or a `touch` changes the file, and it is no user who asks for another try."""

    async def main() -> None:
        served = with_file(monkeypatch, file)
        for wrong in (WRONG_PIN, b"0000", WRONG_PIN):
            for _ in range(2):
                file.write(wrong)
                with pytest.raises(TokenError, match="PIN"):
                    await served.sign()
        assert (served.slots.pins_sent, file.in_memory) == ([WRONG_PIN, b"0000"], 0)
        file.write(PIN)
        await served.sign()
        assert served.slots.pins_sent[2:] == [PIN]

    run(main())


def test_a_wrong_one_costs_no_other_try_when_another_file_has_it(
    monkeypatch: pytest.MonkeyPatch, file: PinFile, tmp_path: Path
) -> None:
    """A [[token]] has another URI after a reload, or there is one for each module that shows the token."""

    async def main() -> None:
        file.write(WRONG_PIN)
        served = with_file(monkeypatch, file)
        with pytest.raises(PinRejectedError):
            await served.sign()
        other = PinFile(tmp_path / "other", WRONG_PIN)
        served.served._rules._policy_of = lambda _: PinPolicy(source=other)
        for _ in range(2):
            with pytest.raises(TokenError, match=f"refused the PIN in file:{other.path}, so it is not tried"):
                await served.sign()
        assert (served.slots.pins_sent, other.in_memory) == ([WRONG_PIN], 0)
        other.write(PIN)
        served.token.flags = COUNT_LOW
        await served.sign()
        assert served.slots.pins_sent == [WRONG_PIN, PIN]

    run(main())


def test_one_that_was_right_and_no_longer_is_costs_one_try(
    monkeypatch: pytest.MonkeyPatch, file: PinFile
) -> None:
    """Nobody is asked: who configured the file is not at the keyboard."""

    async def main() -> None:
        served = with_file(monkeypatch, file)
        await served.sign()
        served.token.pin = b"changed"
        served.lose_worker()
        with pytest.raises(PinRejectedError):
            await served.sign()
        with pytest.raises(TokenError, match="refused the PIN in file:"):
            await served.sign()
        assert (served.slots.pins_sent, served.person.requests) == ([PIN, PIN], [])

    run(main())


def test_without_a_verdict_it_is_not_sent_again(monkeypatch: pytest.MonkeyPatch, file: PinFile) -> None:
    """The worker is replaced and the request tried once more, and reading the file anew changes nothing."""

    async def main() -> None:
        served = with_file(monkeypatch, file)
        served.slots.fail_next("login", lost())
        for _ in range(2):
            with pytest.raises(
                TokenError, match=r"the token did not answer the login.*write it to pin_source again"
            ):
                await served.sign()
        assert (served.slots.pins_sent, file.in_memory) == ([PIN], 0)
        file.write(PIN)
        await served.sign()

    run(main())


def test_one_that_was_right_survives_a_login_without_a_verdict(
    monkeypatch: pytest.MonkeyPatch, file: PinFile
) -> None:
    async def main() -> None:
        served = with_file(monkeypatch, file)
        await served.sign()
        served.served.forget_pin()
        served.slots.fail_next("login", lost())
        await served.sign()
        assert served.slots.logins == [PIN, PIN, PIN]

    run(main())


@pytest.mark.parametrize("flags", [COUNT_LOW, FINAL_TRY], ids=["low", "final"])
def test_when_tries_are_missing_a_person_is_asked(
    monkeypatch: pytest.MonkeyPatch, file: PinFile, flags: TokenFlag
) -> None:
    async def main() -> None:
        file.write(WRONG_PIN)
        served = with_file(monkeypatch, file, StandInToken(Key("key"), flags=flags), Person(PIN))
        await served.sign()
        assert (served.slots.pins_sent, len(served.person.requests)) == ([PIN], 1)
        assert file.in_memory == 0

    run(main())


def test_the_flags_are_read_after_the_file(monkeypatch: pytest.MonkeyPatch, file: PinFile) -> None:
    """A file may be slow, and another program may lose tries meanwhile."""

    async def main() -> None:
        served = with_file(monkeypatch, file, person=Person(None))

        def lose_tries() -> None:
            served.token.flags = FINAL_TRY

        file.before = lose_tries
        with pytest.raises(TokenError, match="cancelled"):
            await served.sign()
        assert served.slots.pins_sent == []

    run(main())


def test_it_comes_before_the_keypad(monkeypatch: pytest.MonkeyPatch, file: PinFile) -> None:
    async def main() -> None:
        served = with_file(monkeypatch, file, StandInToken(Key("key"), flags=KEYPAD))
        await served.sign()
        assert served.slots.logins == [PIN]

    run(main())


def test_a_careful_key_gets_it_at_every_use(monkeypatch: pytest.MonkeyPatch, file: PinFile) -> None:
    async def main() -> None:
        served = with_file(monkeypatch, file, careful_token())
        await served.sign()
        await served.sign()
        assert served.slots.pins_sent == [PIN, PIN, PIN]
        assert len(file.pins) == 1

    run(main())


def test_it_is_not_sent_to_a_token_with_other_keys(monkeypatch: pytest.MonkeyPatch, file: PinFile) -> None:
    async def main() -> None:
        served = with_file(monkeypatch, file)
        await served.sign()
        key = served.token.keys[0]
        served.served.forget_pin()
        served.token.keys = [Key("another")]
        with pytest.raises(TokenError, match="has other keys than before"):
            await served.sign(key)
        assert served.slots.logins == [PIN]

    run(main())


@pytest.mark.parametrize("careful", [False, True])
def test_a_locked_agent_does_not_read_it(
    monkeypatch: pytest.MonkeyPatch, file: PinFile, careful: bool
) -> None:
    async def main() -> None:
        token = careful_token() if careful else StandInToken(Key("key"))
        served = with_file(monkeypatch, file, token)
        served.pins.seal(Seal())
        with pytest.raises(TokenError, match="the agent is locked"):
            await served.sign()
        assert (file.pins, served.slots.pins_sent) == ([], [])

    run(main())


def test_an_agent_that_is_locked_while_it_is_read_does_not_send_it(
    monkeypatch: pytest.MonkeyPatch, file: PinFile
) -> None:
    async def main() -> None:
        served = with_file(monkeypatch, file)
        reading, go_on = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def wait() -> None:
            loop.call_soon_threadsafe(reading.set)
            assert go_on.wait(10)

        file.before = wait
        signing = asyncio.create_task(served.sign())
        await reading.wait()
        served.pins.seal(Seal())
        served.served.suspend()
        go_on.set()
        with pytest.raises(TokenError, match="the agent is locked"):
            await signing
        assert (served.slots.pins_sent, file.in_memory) == ([], 0)

    run(main())


def test_it_is_forgotten_when_the_policy_says_so(monkeypatch: pytest.MonkeyPatch, file: PinFile) -> None:
    async def main() -> None:
        policy = PinPolicy(forget_on=frozenset({ForgetOn.SUSPEND}))
        served = bench(monkeypatch, policy=policy)
        await served.remember()
        served.served.forget_pin_if(ForgetOn.SCREEN_LOCK)
        assert served.served.pin_remembered
        served.served.forget_pin_if(ForgetOn.SUSPEND)
        assert not served.served.pin_remembered

    run(main())


class Clock:
    """CLOCK_BOOTTIME, which stands still until a test moves it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("replug.token.pins.rules.boottime", clock)
    return clock


def test_a_pin_is_asked_for_again_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """However often it was used, and though the machine slept: the boot clock goes on then."""

    async def main() -> None:
        served = bench(monkeypatch, person=Person(PIN, PIN), policy=PinPolicy(time_to_live=600))
        await served.sign()
        for _ in range(3):
            clock.now += 199
            served.lose_worker()
            await served.sign()
        assert len(served.person.requests) == 1
        assert not served.pins.has_expired(served.served.pin_owner)
        clock.now += 3
        assert served.pins.has_expired(served.served.pin_owner)
        served.lose_worker()
        await served.sign()
        assert len(served.person.requests) == 2
        assert not any(pin.value for pin in served.person.pins[:1])

    run(main())


def test_a_pin_that_is_not_used_expires(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    async def main() -> None:
        served = bench(monkeypatch, person=Person(PIN), policy=PinPolicy(idle_time=60))
        await served.sign()
        for _ in range(3):
            clock.now += 59
            await served.sign()
        assert served.served.pin_remembered
        clock.now += 60
        assert not served.served.pin_remembered

    run(main())


def test_a_pin_that_expires_while_the_token_checks_it(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """The signature that waits for it is made; it is not remembered."""

    async def main() -> None:
        served = bench(monkeypatch, policy=PinPolicy(time_to_live=600))
        pin = await served.remember()
        served.lose_worker()
        gate = served.slots.hold_next("login")
        signing = asyncio.create_task(served.sign())
        await gate.entered.wait()
        clock.now += 600
        assert served.pins.has_expired(served.served.pin_owner)
        served.served.forget_pin()
        gate.opened.set()
        await signing
        assert (served.served.pin_remembered, pin.value) == (False, b"")
        assert served.slots.logins == [PIN, PIN]

    run(main())
