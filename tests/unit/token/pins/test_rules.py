"""The rules about PINs: to whom one is sent, when, and how often."""

from __future__ import annotations

import asyncio

import pytest
from doubles.stand_ins import (
    PIN,
    WRONG_PIN,
    Key,
    StandInToken,
    lost,
    refused,
    run,
)
from doubles.token_bench import Bench

from replug.token.errors import (
    ModuleUnreachableError,
    PinNeededError,
    PinRejectedError,
    Rejection,
    TokenAbsentError,
    TokenError,
    Verdict,
)
from replug.token.pins.pin import Pin
from replug.token.pins.unlocking import how_to_unlock
from replug.token.serving.presence import TokenState

# A PIN goes only to the token it was entered for.


def test_flags_and_keys_are_read_right_before_every_login(plain: Bench) -> None:
    async def main() -> None:
        await plain.remember()
        plain.lose_worker()
        await plain.sign()
        assert plain.slots.operations == ["load", "open", "login", "load", "open", "login", "sign"]

    run(main())


def test_a_token_with_other_keys_does_not_get_the_pin(plain: Bench) -> None:
    async def main() -> None:
        pin = await plain.remember()
        plain.lose_worker()
        [old], plain.token.keys = plain.token.keys, [Key("swapped")]
        with pytest.raises(TokenError, match="other keys than before"):
            await plain.sign(old)
        assert plain.slots.pins_sent == [PIN]
        assert plain.pin is None
        assert pin.value == b""

    run(main())


def test_a_stranger_in_place_of_a_token_that_hides_its_keys_does_not_get_the_pin(plain: Bench) -> None:
    async def main() -> None:
        plain.token.public_hidden = True
        await plain.remember()
        plain.lose_worker()
        [old], plain.token.keys = plain.token.keys, [Key("swapped")]
        plain.token.public_hidden = False
        with pytest.raises(TokenError, match="other keys than before"):
            await plain.sign(old)
        assert plain.slots.pins_sent == [PIN]
        assert plain.pin is None

    run(main())


@pytest.mark.parametrize("hidden", [False, True])
def test_a_token_that_has_a_twin_gets_the_pin_if_it_shows_its_keys(asking: Bench, hidden: bool) -> None:
    """Of two with one name, which one this is can be told by nothing else."""

    async def main() -> None:
        asking.token.public_hidden = hidden
        await asking.remember()
        asking.slots.tokens.append(StandInToken(Key("twin's")))
        asking.lose_worker()
        asking.person.answers = [PIN] if hidden else []
        await asking.sign()
        assert len(asking.person.requests) == hidden

    run(main())


def test_nobody_is_asked_to_unlock_other_keys_for_the_old_one(asking: Bench) -> None:
    async def main() -> None:
        await asking.remember()
        asking.lose_worker()
        [old], asking.token.keys = asking.token.keys, [Key("swapped")]
        for _ in range(2):
            with pytest.raises(TokenError):
                await asking.sign(old)
        assert asking.person.requests == []
        assert asking.slots.pins_sent == [PIN]

    run(main())


def test_the_keys_of_a_swapped_token_are_known_and_asked_for_by_themselves(asking: Bench) -> None:
    async def main() -> None:
        await asking.remember()
        asking.lose_worker()
        [old], asking.token.keys = asking.token.keys, [Key("swapped")]
        with pytest.raises(TokenError, match="other keys than before"):
            await asking.sign(old)
        await asking.sign()
        assert [request.key for request in asking.person.requests] == ["swapped"]

    run(main())


def test_a_token_that_also_got_a_new_key_is_still_the_same(plain: Bench) -> None:
    async def main() -> None:
        await plain.remember()
        plain.lose_worker()
        plain.token.keys.append(Key("new"))
        await plain.sign()
        assert plain.slots.pins_sent == [PIN, PIN]

    run(main())


def test_another_token_in_the_slot_does_not_get_the_pin(plain: Bench) -> None:
    async def main() -> None:
        pin = await plain.remember()
        plain.lose_worker()
        plain.slots.tokens = [StandInToken(*plain.token.keys, serial="2")]
        with pytest.raises(TokenAbsentError, match='token "work" \\(serial 1\\) is in no slot'):
            await plain.sign()
        assert plain.slots.pins_sent == [PIN]
        # It is kept for when its own token is back.
        assert plain.pin is pin
        plain.slots.tokens = [plain.token]
        await plain.sign()
        assert plain.slots.pins_sent == [PIN, PIN]

    run(main())


@pytest.mark.parametrize("swapped", [StandInToken(Key("key"), serial="2"), StandInToken(Key("other"))])
def test_a_token_swapped_during_the_prompt_does_not_get_the_pin(asking: Bench, swapped: StandInToken) -> None:
    async def main() -> None:
        await asking.served.read()
        answered = asyncio.Event()
        asking.person.may_answer = answered.wait()
        signing = asyncio.create_task(asking.sign())
        await asking.person.asked.wait()
        asking.lose_worker()
        asking.slots.tokens = [swapped]
        answered.set()
        with pytest.raises(TokenError):
            await signing
        assert asking.slots.pins_sent == []
        assert [pin.value for pin in asking.person.pins] == [b""]

    run(main())


# A rejected PIN is forgotten at once and never sent again by itself.


def test_a_remembered_pin_that_is_rejected_is_sent_once_and_asked_for_anew(asking: Bench) -> None:
    async def main() -> None:
        old = await asking.remember()
        asking.lose_worker()
        asking.token.pin = b"changed"
        asking.person.answers = [b"changed"]
        await asking.sign()
        assert asking.slots.logins == [PIN, PIN, b"changed"]
        assert [request.rejection for request in asking.person.requests] == [Rejection.REMEMBERED]
        assert old.value == b""
        assert asking.pin is asking.person.pins[0]

    run(main())


def test_a_rejected_pin_stays_forgotten_when_the_person_cancels(asking: Bench) -> None:
    async def main() -> None:
        await asking.remember()
        asking.lose_worker()
        asking.token.pin = b"changed"
        asking.person.answers = [None, None]
        for _ in range(2):
            with pytest.raises(TokenError, match="cancelled"):
                await asking.sign()
        assert asking.slots.logins == [PIN, PIN]

    run(main())


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (
            Verdict.PIN_INCORRECT,
            "the PIN is wrong; one try was spent; type the right one when you are asked again",
        ),
        (Verdict.PIN_UNUSABLE, "the token does not accept this PIN (CKR_PIN_LEN_RANGE)"),
        (
            Verdict.PIN_LOCKED,
            "the PIN is locked; " + how_to_unlock("/usr/lib/module.so", StandInToken().identity),
        ),
        (Verdict.PIN_NOT_SET, "no user PIN is set; initialise the token first"),
        (Verdict.LOGIN_CANCELLED, "the PIN entry was cancelled; try again and enter the PIN"),
    ],
)
def test_a_pin_given_by_a_request_that_is_refused_is_sent_once(
    plain: Bench, verdict: Verdict, words: str
) -> None:
    async def main() -> None:
        pin = Pin(PIN)
        plain.slots.fail_next("login", refused(verdict, "CKR_PIN_LEN_RANGE"))
        with pytest.raises(TokenError) as caught:
            await plain.served.log_in(pin)
        assert str(caught.value) == f'token "work" (serial 1): {words}'
        assert plain.slots.logins == [PIN]
        assert pin.value == b""
        assert plain.pin is None
        locked = verdict is Verdict.PIN_LOCKED
        assert plain.served.state is (TokenState.LOCKED if locked else TokenState.PRESENT)

    run(main())


def test_a_wrong_pin_given_anew_changes_nothing_but_the_tries_left(plain: Bench) -> None:
    async def main() -> None:
        right = await plain.remember()
        with pytest.raises(PinRejectedError):
            await plain.remember(WRONG_PIN)
        assert plain.slots.logins == [PIN, WRONG_PIN]
        assert plain.pin is right
        await plain.sign()
        assert plain.slots.logins == [PIN, WRONG_PIN, PIN]

    run(main())


# A worker that is lost around a login.


def test_a_worker_lost_idle_is_replaced_and_logged_in_from_memory(plain: Bench) -> None:
    async def main() -> None:
        await plain.remember()
        for _ in range(3):
            plain.lose_worker()
            await plain.sign()
        assert plain.slots.logins == [PIN] * 4

    run(main())


def test_a_verified_pin_is_sent_again_when_the_worker_is_lost_in_the_login(plain: Bench) -> None:
    async def main() -> None:
        await plain.remember()
        plain.lose_worker()
        plain.slots.fail_next("login", lost())
        await plain.sign()
        assert plain.slots.logins == [PIN, PIN, PIN]

    run(main())


def test_there_is_one_retry_and_never_a_third_login(plain: Bench) -> None:
    async def main() -> None:
        await plain.remember()
        plain.lose_worker()
        plain.slots.fail_next("login", lost(), lost())
        with pytest.raises(ModuleUnreachableError, match="failed twice"):
            await plain.sign()
        assert plain.slots.logins == [PIN, PIN, PIN]
        assert plain.served.state is TokenState.UNREACHABLE

    run(main())


@pytest.mark.parametrize("fault", [lost(), refused(Verdict.FAILED, "C_Login: CKR_0x30")])
def test_a_pin_without_a_verdict_is_not_sent_again(asking: Bench, fault: Exception) -> None:
    async def main() -> None:
        asking.slots.fail_next("login", fault)
        with pytest.raises(TokenError) as caught:
            await asking.sign()
        assert asking.slots.logins == [PIN]
        assert not asking.served.pin_remembered
        assert asking.person.pins[0].value == b""
        # It was sent, and may have cost a try: who reads the reason must not believe otherwise.
        assert "not sent" not in str(caught.value)

    run(main())


@pytest.mark.parametrize("fault", [lost(), refused(Verdict.FAILED, "C_Login: CKR_0x30")])
def test_a_pin_of_a_request_without_a_verdict_is_not_sent_again(plain: Bench, fault: Exception) -> None:
    async def main() -> None:
        pin = Pin(PIN)
        plain.slots.fail_next("login", fault)
        with pytest.raises((TokenError, PinNeededError)):
            await plain.served.log_in(pin)
        assert plain.slots.logins == [PIN]
        assert pin.value == b""
        assert not plain.served.pin_remembered

    run(main())
