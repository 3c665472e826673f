"""The tries that are left, as a token tells of them, and PINs forgotten while they are in use."""

from __future__ import annotations

import asyncio

import pytest
from doubles.stand_ins import (
    PIN,
    Person,
    StandInToken,
    StandInWorker,
    lost,
    run,
    settle,
)
from doubles.token_bench import COUNT_LOW, FINAL_TRY, LOCKED, Bench, bench, careful_token

from replug.token.errors import (
    PinNeededError,
    TokenError,
)
from replug.token.identity import TokenFlag, TokenId
from replug.token.serving.presence import TokenState

# The flags: what the token says about the tries that are left.


def test_a_locked_token_is_sent_nothing_and_nobody_is_asked(plain: Bench) -> None:
    async def main() -> None:
        await plain.remember()
        plain.lose_worker()
        plain.token.flags = LOCKED
        with pytest.raises(TokenError, match="the PIN is locked; the security officer can"):
            await plain.sign()
        with pytest.raises(TokenError, match="the PIN is locked; the security officer can"):
            await plain.remember()
        assert plain.slots.logins == [PIN]
        assert (plain.served.state, plain.served.reason) == (
            TokenState.LOCKED,
            'token "work" (serial 1): the PIN is locked',
        )

    run(main())


def test_nobody_is_asked_for_a_pin_that_was_locked_meanwhile(plain: Bench) -> None:
    async def main() -> None:
        await plain.served.read()
        plain.lose_worker()
        found_unlocked, asking = plain.slots.hold_next("open"), plain.slots.hold_next("flags")
        signing = asyncio.create_task(plain.sign())
        await found_unlocked.entered.wait()
        found_unlocked.opened.set()
        await asking.entered.wait()
        plain.token.flags = LOCKED
        asking.opened.set()
        with pytest.raises(TokenError, match="the PIN is locked"):
            await signing
        assert plain.person.requests == []

    run(main())


def test_for_the_last_try_the_remembered_pin_is_not_used(asking: Bench) -> None:
    async def main() -> None:
        await asking.remember()
        asking.lose_worker()
        asking.token.flags = FINAL_TRY
        await asking.sign()
        assert asking.slots.logins == [PIN, PIN]
        [request] = asking.person.requests
        assert "LAST TRY" in request.text()
        assert asking.pin is asking.person.pins[0]

    run(main())


def test_the_last_try_is_not_for_a_pin_whose_giver_did_not_know(plain: Bench) -> None:
    async def main() -> None:
        plain.token.flags = FINAL_TRY
        with pytest.raises(PinNeededError):
            await plain.remember()
        assert plain.slots.logins == []

    run(main())


def test_a_last_try_that_comes_while_the_person_types_is_not_spent(asking: Bench) -> None:
    async def main() -> None:
        answered = asyncio.Event()
        asking.person.may_answer = answered.wait()
        signing = asyncio.create_task(asking.sign())
        await asking.person.asked.wait()
        asking.token.flags = FINAL_TRY
        asking.person.answers = [b"typed before", PIN]
        asking.person.may_answer = None
        answered.set()
        await signing
        assert asking.slots.logins == [PIN]
        assert asking.person.pins[0].value == b""
        assert ["LAST TRY" in request.text() for request in asking.person.requests] == [False, True]

    run(main())


def test_a_last_try_that_comes_after_the_flags_were_read_is_not_spent(
    asking: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another module's login with a wrong PIN ends between our look at the flags and our login."""
    other_login = asking.pins.one_login(asking.token.identity)
    read = StandInWorker.flags

    async def slowly(worker: StandInWorker, identity: TokenId) -> TokenFlag:
        flags = await read(worker, identity)
        if asking.person.pins and asking.token.flags != FINAL_TRY:
            async with other_login:
                asking.token.flags = FINAL_TRY
        return flags

    async def main() -> None:
        monkeypatch.setattr(StandInWorker, "flags", slowly)
        asking.person.answers = [b"typed before", PIN]
        await asking.sign()
        assert asking.slots.logins == [PIN]
        assert ["LAST TRY" in request.text() for request in asking.person.requests] == [False, True]

    run(main())


def test_with_tries_missing_the_remembered_pin_is_sent_once(asking: Bench) -> None:
    """Two tries or more are left. Not all modules report that one is missing, and they are not to differ."""

    async def main() -> None:
        await asking.remember()
        asking.lose_worker()
        asking.token.flags = COUNT_LOW
        await asking.sign()
        assert (asking.slots.logins, asking.person.requests) == ([PIN, PIN], [])

    run(main())


def test_with_tries_missing_a_remembered_pin_that_is_refused_is_forgotten(asking: Bench) -> None:
    async def main() -> None:
        old = await asking.remember()
        asking.lose_worker()
        asking.token.flags, asking.token.pin = COUNT_LOW, b"changed"
        asking.person.answers = [b"changed"]
        await asking.sign()
        assert asking.slots.logins == [PIN, PIN, b"changed"]
        assert old.value == b""

    run(main())


def test_with_tries_missing_a_remembered_pin_is_not_sent_again_without_an_answer(asking: Bench) -> None:
    async def main() -> None:
        await asking.remember()
        asking.lose_worker()
        asking.token.flags = COUNT_LOW
        asking.slots.fail_next("login", lost())
        await asking.sign()
        assert (asking.slots.logins, len(asking.person.requests)) == ([PIN, PIN, PIN], 1)

    run(main())


def test_with_tries_missing_a_token_that_hides_its_keys_is_not_sent_the_remembered_pin(asking: Bench) -> None:
    async def main() -> None:
        asking.token.public_hidden = True
        await asking.remember()
        asking.lose_worker()
        asking.token.flags = COUNT_LOW
        asking.person.answers = [None]
        with pytest.raises(TokenError, match="cancelled"):
            await asking.sign()
        assert asking.slots.logins == [PIN]

    run(main())


def test_with_tries_missing_a_pin_given_now_is_used(plain: Bench) -> None:
    async def main() -> None:
        plain.token.flags = COUNT_LOW
        await plain.remember()
        assert plain.slots.logins == [PIN]

    run(main())


# A PIN that is forgotten while it is in use.


@pytest.mark.parametrize("token", [None, careful_token()])
def test_a_pin_typed_before_pins_were_forgotten_is_not_remembered_after(
    monkeypatch: pytest.MonkeyPatch, token: StandInToken | None
) -> None:
    """The screen is locked, say, while its login waits for a worker that is busy."""

    async def main() -> None:
        one = bench(monkeypatch, token, Person(*[PIN] * 9))
        answered = asyncio.Event()
        one.person.may_answer = answered.wait()
        signing = asyncio.create_task(one.sign())
        await one.person.asked.wait()
        busy = one.slots.hold_next("open")
        reading = asyncio.create_task(one.served.read())
        await busy.entered.wait()
        answered.set()
        await settle()
        one.person.may_answer = None
        one.served.forget_pin()
        busy.opened.set()
        await reading
        await signing
        assert one.slots.logins == [PIN]
        assert one.person.pins[0].value == b""
        assert one.pin is not one.person.pins[0]

    run(main())


def test_a_pin_forgotten_during_its_login_stays_forgotten(asking: Bench) -> None:
    async def main() -> None:
        await asking.remember()
        asking.lose_worker()
        gate = asking.slots.hold_next("login")
        signing = asyncio.create_task(asking.sign())
        await gate.entered.wait()
        asking.served.forget_pin()
        gate.opened.set()
        await signing
        assert asking.pin is None
        # The next login is with what a person types, not with what is left of the old buffer.
        asking.lose_worker()
        await asking.sign()
        assert asking.slots.logins == [PIN, PIN, PIN]
        assert len(asking.person.requests) == 1

    run(main())


def test_a_pin_forgotten_during_a_careful_signature_stays_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        careful = bench(monkeypatch, careful_token())
        await careful.remember()
        gate = careful.slots.hold_next("sign")
        signing = asyncio.create_task(careful.sign())
        await gate.entered.wait()
        careful.served.forget_pin()
        gate.opened.set()
        await signing
        assert careful.pin is None

    run(main())


@pytest.mark.parametrize("operation", ["flags", "login"])
def test_a_token_removed_during_the_login_keeps_no_pin_and_is_sent_none(
    asking: Bench, operation: str
) -> None:
    async def main() -> None:
        answered = asyncio.Event()
        asking.person.may_answer = answered.wait()
        signing = asyncio.create_task(asking.sign())
        await asking.person.asked.wait()
        gate = asking.slots.hold_next(operation)
        answered.set()
        await gate.entered.wait()
        asking.served.close()
        await settle()
        gate.opened.set()
        with pytest.raises(TokenError, match="was removed from the agent"):
            await signing
        await settle()
        assert asking.pin is None
        assert asking.slots.logins == ([PIN] if operation == "login" else [])

    run(main())


def test_an_accepted_pin_is_not_sent_again_and_again_without_an_answer(asking: Bench) -> None:
    """Each login that fails for no stated reason may have cost a try, if the PIN was changed elsewhere."""

    async def main() -> None:
        await asking.remember()
        asking.lose_worker()
        asking.slots.fail_next("login", lost(), lost())
        with pytest.raises(TokenError, match="failed twice"):
            await asking.sign()
        assert asking.person.requests == []
        await asking.sign()
        assert len(asking.person.requests) == 1  # the user, who may know of another PIN
        asking.lose_worker()
        await asking.sign()
        assert len(asking.person.requests) == 1  # it was accepted, and counts as before

    run(main())
