"""Where a PIN comes from, and the keys that want one at every use."""

from __future__ import annotations

import pytest
from doubles.stand_ins import (
    PIN,
    WITHOUT_PIN,
    WRONG_PIN,
    Key,
    Person,
    StandInToken,
    lost,
    refused,
    run,
)
from doubles.token_bench import FINAL_TRY, KEYPAD, LOCKED, Bench, bench, careful_token

from replug.token.errors import (
    Rejection,
    TokenError,
    Verdict,
)
from replug.token.serving.presence import TokenState

# Where a PIN comes from: the request, memory, the keypad, a prompt.


def test_a_pin_of_the_request_comes_before_the_remembered_one(plain: Bench) -> None:
    async def main() -> None:
        old = await plain.remember()
        plain.token.pin = b"changed"
        new = await plain.remember(b"changed")
        assert plain.slots.logins == [PIN, b"changed"]
        assert plain.pin is new
        assert old.value == b""

    run(main())


def test_a_pin_of_a_request_is_checked_though_a_session_is_open(plain: Bench) -> None:
    async def main() -> None:
        await plain.remember()
        await plain.sign()
        await plain.remember()
        assert plain.slots.logins == [PIN, PIN]

    run(main())


def test_a_remembered_pin_comes_before_the_prompt(asking: Bench) -> None:
    async def main() -> None:
        await asking.sign()
        asking.lose_worker()
        await asking.sign()
        assert len(asking.person.requests) == 1

    run(main())


def test_a_keypad_comes_before_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        keypad = bench(monkeypatch, StandInToken(Key("key"), flags=KEYPAD))
        await keypad.sign()
        assert keypad.slots.logins == [None]
        assert not keypad.served.pin_remembered

    run(main())


def test_a_pin_of_the_request_comes_before_the_keypad(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        keypad = bench(monkeypatch, StandInToken(Key("key"), flags=KEYPAD))
        await keypad.remember()
        assert keypad.slots.logins == [PIN]

    run(main())


def test_a_cancelled_keypad_refuses_and_is_not_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        keypad = bench(monkeypatch, StandInToken(Key("key"), flags=KEYPAD))
        keypad.slots.fail_next("login", refused(Verdict.LOGIN_CANCELLED))
        with pytest.raises(TokenError, match="the PIN entry was cancelled"):
            await keypad.sign()
        assert keypad.slots.logins == [None]

    run(main())


def test_a_token_that_needs_no_login_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        open_token = bench(monkeypatch, StandInToken(Key("key"), flags=WITHOUT_PIN))
        await open_token.sign()
        assert open_token.slots.logins == []
        assert open_token.served.state is TokenState.READY

    run(main())


# Keys that want the PIN at every use.


def test_a_careful_key_gets_the_remembered_pin_at_every_use(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        careful = bench(monkeypatch, careful_token(), Person(PIN))
        await careful.sign()
        await careful.sign()
        assert [(call.operation, call.pin) for call in careful.slots.calls if call.pin] == [
            ("login", PIN),
            ("sign", PIN),
            ("sign", PIN),
        ]
        assert len(careful.person.requests) == 1

    run(main())


def test_flags_are_read_before_every_use_of_a_careful_key(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        careful = bench(monkeypatch, careful_token(), Person(PIN))
        await careful.remember()
        await careful.sign()
        careful.token.flags = FINAL_TRY
        await careful.sign()
        assert "LAST TRY" in careful.person.requests[0].text()
        assert careful.slots.pins_sent == [PIN, PIN, PIN]

    run(main())


def test_a_careful_key_of_a_locked_token_is_refused_and_nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        careful = bench(monkeypatch, careful_token(), Person(PIN, PIN))
        await careful.remember()
        await careful.sign()
        careful.token.flags = LOCKED
        with pytest.raises(TokenError, match="the PIN is locked"):
            await careful.sign()
        assert careful.person.requests == []
        assert careful.slots.pins_sent == [PIN, PIN]

    run(main())


def test_a_remembered_pin_that_a_careful_key_rejects_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        careful = bench(monkeypatch, careful_token(), Person(b"changed"))
        old = await careful.remember()
        careful.token.pin = b"changed"
        await careful.sign()
        assert careful.slots.pins_sent == [PIN, PIN, b"changed", b"changed"]
        assert [request.rejection for request in careful.person.requests] == [Rejection.REMEMBERED]
        assert old.value == b""
        # After the failed login the sessions of that worker were in no state to go on with.
        assert careful.slots.alive == [1]

    run(main())


def test_a_pin_whose_use_by_a_careful_key_got_no_verdict_is_sent_again_as_it_is_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        careful = bench(monkeypatch, careful_token())
        await careful.remember()
        careful.slots.fail_next("sign", lost())
        await careful.sign()
        assert careful.slots.pins_sent == [PIN, PIN, PIN, PIN]

    run(main())


def test_a_careful_key_on_a_token_that_needs_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        careful = bench(monkeypatch, careful_token(WITHOUT_PIN), Person(WRONG_PIN, PIN))
        await careful.sign()
        await careful.sign()
        assert careful.slots.pins_sent == [WRONG_PIN, PIN, PIN]
        assert careful.slots.logins == []
        assert [request.rejection for request in careful.person.requests] == [None, Rejection.WRONG]

    run(main())


def test_a_careful_key_uses_the_pin_of_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        careful = bench(monkeypatch, careful_token(WITHOUT_PIN))
        await careful.remember()
        await careful.sign()
        assert careful.slots.pins_sent == [PIN]

    run(main())


def test_a_careful_key_uses_the_keypad(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        careful = bench(monkeypatch, careful_token(KEYPAD))
        await careful.sign()
        await careful.sign()
        assert careful.slots.operations.count("sign") == 2
        assert careful.slots.pins_sent == []

    run(main())
