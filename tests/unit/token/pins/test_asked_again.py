"""A wrong PIN is asked for again at once: what is said, what is sent, and when it ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from doubles.stand_ins import PIN, WRONG_PIN, Key, Person, StandInWorker, refused, run
from doubles.token_bench import COUNT_LOW, FINAL_TRY, LOCKED, WITH_PIN, Bench, bench, careful_token

from replug.token.errors import PinLockedError, PinRejectedError, PromptError, Rejection, Verdict
from replug.token.identity import TokenFlag, TokenId
from replug.token.pins.owner import PinOwner
from replug.token.pins.refused import RefusedPins
from replug.token.seal import Seal
from replug.token.serving.shown_keys import ShownKeys

ASKED = None
"""The first question, which says nothing of a PIN before."""


def rejections(bench: Bench) -> list[Rejection | None]:
    """What each question said of the PIN before."""
    return [request.rejection for request in bench.person.requests]


def test_the_second_pin_signs(asking: Bench) -> None:
    async def main() -> None:
        asking.person.answers = [WRONG_PIN, PIN]
        await asking.sign()
        assert asking.slots.logins == [WRONG_PIN, PIN]
        assert rejections(asking) == [ASKED, Rejection.WRONG]
        assert asking.person.pins[0].value == b""
        assert asking.pin is asking.person.pins[1]

    run(main())


def test_three_wrong_pins_are_enough(asking: Bench) -> None:
    async def main() -> None:
        asking.person.answers = [b"1", b"2", b"3", PIN]
        with pytest.raises(PinRejectedError, match="the PIN is wrong; one try was spent"):
            await asking.sign()
        assert asking.slots.logins == [b"1", b"2", b"3"]
        assert not asking.served.pin_remembered
        # The next request asks without a word about them.
        await asking.sign()
        assert rejections(asking) == [ASKED, Rejection.WRONG, Rejection.WRONG, ASKED]

    run(main())


def test_the_same_wrong_pin_is_not_sent_again(asking: Bench) -> None:
    async def main() -> None:
        asking.person.answers = [WRONG_PIN, WRONG_PIN, PIN]
        await asking.sign()
        assert asking.slots.logins == [WRONG_PIN, PIN]
        assert rejections(asking) == [ASKED, Rejection.WRONG, Rejection.REPEATED]
        assert asking.person.pins[1].value == b""

    run(main())


def test_a_program_that_always_answers_the_same_spends_one_try(asking: Bench) -> None:
    async def main() -> None:
        asking.person.answers = [WRONG_PIN] * 6
        for _ in range(2):
            with pytest.raises(PromptError, match="the wrong PIN was entered again, and not sent again"):
                await asking.sign()
        assert asking.slots.logins == [WRONG_PIN]
        assert len(asking.person.requests) == 6

    run(main())


def test_before_the_last_try_the_question_warns(asking: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in = StandInWorker.login

    async def spend_a_try(worker: StandInWorker, *arguments: object) -> object:
        asking.token.flags = FINAL_TRY if asking.token.flags == COUNT_LOW else COUNT_LOW
        return await log_in(worker, *arguments)  # type: ignore[arg-type]

    async def main() -> None:
        monkeypatch.setattr(StandInWorker, "login", spend_a_try)
        asking.person.answers = [b"1", b"2", PIN]
        await asking.sign()
        warnings = [request.warnings() for request in asking.person.requests]
        assert warnings == [
            [],
            ["Wrong PIN.", "The token reports that more than one try is left."],
            ["Wrong PIN.", "LAST TRY: a wrong PIN locks the token."],
        ]
        assert asking.slots.logins == [b"1", b"2", PIN]

    run(main())


def test_a_pin_that_locks_the_token_is_the_last_question(
    asking: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in = StandInWorker.login

    async def lock(worker: StandInWorker, *arguments: object) -> object:
        asking.token.flags = LOCKED
        return await log_in(worker, *arguments)  # type: ignore[arg-type]

    async def main() -> None:
        monkeypatch.setattr(StandInWorker, "login", lock)
        asking.person.answers = [WRONG_PIN]
        with pytest.raises(PinLockedError):
            await asking.sign()
        assert asking.slots.logins == [WRONG_PIN]

    run(main())


@pytest.mark.parametrize(
    ("value", "asks_again"),
    [("CKR_PIN_LEN_RANGE", True), ("CKR_PIN_INVALID", True), ("CKR_PIN_EXPIRED", False)],
)
def test_a_pin_that_cannot_be_one(asking: Bench, value: str, asks_again: bool) -> None:
    async def main() -> None:
        asking.person.answers = [b"12", PIN]
        error = refused(Verdict.PIN_UNUSABLE)
        error.value = value
        asking.slots.fail_next("login", error)
        if asks_again:
            await asking.sign()
            assert rejections(asking) == [ASKED, Rejection.UNUSABLE]
        else:
            with pytest.raises(PinRejectedError, match="does not accept this PIN"):
                await asking.sign()

    run(main())


def test_a_pin_from_a_request_is_not_asked_for_again(asking: Bench) -> None:
    """`ssh-add -s` asks by itself; its user sees the refusal."""

    async def main() -> None:
        with pytest.raises(PinRejectedError):
            await asking.remember(WRONG_PIN)
        assert asking.person.requests == []

    run(main())


def test_a_wrong_entry_at_the_keypad_is_refused_and_nobody_is_asked_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        keypad = bench(monkeypatch, careful_token(WITH_PIN | TokenFlag.PROTECTED_AUTHENTICATION_PATH))
        keypad.slots.fail_next("sign", refused(Verdict.PIN_INCORRECT))
        with pytest.raises(PinRejectedError):
            await keypad.sign()

    run(main())


def test_a_key_that_wants_the_pin_at_every_use_asks_again_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its session was logged in already, so the PIN is only compared when it signs."""

    async def main() -> None:
        careful = bench(monkeypatch, careful_token(TokenFlag(0)), Person(WRONG_PIN, WRONG_PIN, PIN))
        await careful.sign()
        assert careful.slots.pins_sent == [WRONG_PIN, PIN]
        assert rejections(careful) == [ASKED, Rejection.WRONG, Rejection.REPEATED]

    run(main())


def owner(*keys: bytes, module: str = "/a.so", label: str = "work") -> PinOwner:
    """A token at a module, with these keys."""
    shown = ShownKeys(lambda: None)
    shown.recall([replace(Key("key").token_key(), blob=blob) for blob in keys], frozenset())
    return PinOwner(module, TokenId("Maker", "Model", "1", label), shown)


def test_what_was_refused_is_known_for_a_minute_or_until_one_is_accepted() -> None:
    now = 0.0
    refused_pins, token = RefusedPins(lambda: now), owner(b"key")

    def lately(*pins: bytes) -> list[bool]:
        return [refused_pins.lately(token, bytearray(pin)) for pin in pins]

    refused_pins.add(token, bytearray(b"1"), lately=True)
    now = 30.0
    refused_pins.add(token, bytearray(b"2"), lately=True)
    refused_pins.add(token, bytearray(), lately=True)  # it was withdrawn meanwhile
    assert lately(b"1", b"2", b"3", b"") == [True, True, False, False]
    now = 61.0
    assert lately(b"1", b"2") == [False, True]
    refused_pins.accepted(token, bytearray(b"1"))
    assert lately(b"2") == [False]
    # What a file holds is not sent after that, either.
    assert [refused_pins.ever(token, bytearray(pin)) for pin in (b"1", b"2")] == [False, True]


def test_marks_tell_nothing_while_the_agent_is_locked() -> None:
    refused_pins, token, seal = RefusedPins(lambda: 0.0), owner(b"key"), Seal()
    refused_pins.add(token, bytearray(b"1"), lately=True)
    key = refused_pins._key
    refused_pins.seal(seal)
    assert not key
    assert not refused_pins.ever(token, bytearray(b"1"))
    refused_pins.add(token, bytearray(b"2"), lately=True)
    refused_pins.unseal(seal)
    assert [refused_pins.ever(token, bytearray(pin)) for pin in (b"1", b"2")] == [True, False]


@pytest.mark.parametrize(
    ("other", "known"),
    [
        (owner(b"key"), True),  # added again
        (owner(), True),
        (owner(b"key", module="/b.so", label="as it calls it"), True),
        (owner(b"other", module="/b.so"), True),
        (owner(b"other"), False),  # a twin, with its own PIN
        (owner(b"other", module="/b.so", label="other"), False),
        (owner(label="other"), False),
    ],
)
def test_which_tokens_may_be_the_one_that_refused_it(other: PinOwner, known: bool) -> None:
    refused_pins = RefusedPins(lambda: 0.0)
    refused_pins.add(owner(b"key"), bytearray(b"1"), lately=True)
    assert refused_pins.lately(other, bytearray(b"1")) is known
