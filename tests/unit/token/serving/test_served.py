"""A served token: its state, the keys it offers, and signing when something is not as it was."""

from __future__ import annotations

import asyncio

import pytest
from doubles.stand_ins import (
    PIN,
    WITHOUT_PIN,
    Key,
    Person,
    StandInToken,
    lost,
    refused,
    run,
    settle,
)
from doubles.token_bench import Bench, bench

from replug.protocol.wire import ProtocolError
from replug.token.boottime import boottime
from replug.token.errors import ModuleUnreachableError, TokenAbsentError, TokenError, Verdict
from replug.token.prompts.request import Asker
from replug.token.serving.presence import TokenState
from replug.token.serving.served import ServedToken


@pytest.fixture
def mixed(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A token with a key that signs and one that does not."""
    return bench(monkeypatch, StandInToken(Key("signs"), Key("derives", signs=False)))


def labels(served: ServedToken) -> list[str]:
    return [key.label for key in served.keys.values()]


# State.


def test_a_token_is_absent_until_it_was_looked_at(plain: Bench) -> None:
    assert (plain.served.state, plain.served.present, plain.served.keys) == (TokenState.ABSENT, False, {})


def test_reading_makes_it_present_and_login_ready(plain: Bench) -> None:
    async def main() -> None:
        await plain.served.read()
        assert (plain.served.state, plain.served.present) == (TokenState.PRESENT, True)
        await plain.remember()
        assert (plain.served.state, plain.served.present) == (TokenState.READY, True)

    run(main())


def test_leaving_and_returning(plain: Bench) -> None:
    async def main() -> None:
        await plain.remember()
        plain.served.left()
        assert (plain.served.state, plain.served.reason, plain.served.present) == (
            TokenState.ABSENT,
            "it is in no slot",
            False,
        )
        plain.served.returned()
        assert (plain.served.state, plain.served.reason) == (TokenState.PRESENT, "")
        # Its keys and its PIN were kept for this.
        assert labels(plain.served) == ["key"]
        assert plain.served.pin_remembered

    run(main())


def test_a_module_that_cannot_be_asked_cuts_off_its_token(plain: Bench) -> None:
    plain.served.cut_off("pcscd is gone")
    assert plain.served.state is TokenState.ABSENT
    plain.served.returned()
    plain.served.cut_off("pcscd is gone")
    assert (plain.served.state, plain.served.reason, plain.served.present) == (
        TokenState.UNREACHABLE,
        "pcscd is gone",
        False,
    )
    plain.served.returned()
    assert plain.served.state is TokenState.PRESENT


# Keys.


def test_before_login_all_public_keys_are_offered_and_after_it_those_that_sign(mixed: Bench) -> None:
    async def main() -> None:
        await mixed.served.read()
        assert labels(mixed.served) == ["signs", "derives"]
        await mixed.remember()
        assert labels(mixed.served) == ["signs"]

    run(main())


def test_a_token_that_needs_no_login_offers_only_what_signs(mixed: Bench) -> None:
    async def main() -> None:
        mixed.token.flags = WITHOUT_PIN
        await mixed.served.read()
        assert labels(mixed.served) == ["signs"]

    run(main())


def test_keys_that_show_only_after_login(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        hidden = bench(monkeypatch)
        hidden.token.public_hidden = True
        await hidden.served.read()
        assert labels(hidden.served) == []
        await hidden.remember()
        assert labels(hidden.served) == ["key"]

    run(main())


# Signing.


def test_a_key_that_is_no_longer_there_is_refused(mixed: Bench) -> None:
    async def main() -> None:
        await mixed.remember()
        removed = mixed.token.keys.pop(0)
        mixed.lose_worker()
        with pytest.raises(TokenError, match="no longer holds this key, or may not sign with it"):
            await mixed.sign(removed)

    run(main())


def test_a_key_that_may_not_sign_is_refused(mixed: Bench) -> None:
    async def main() -> None:
        await mixed.remember()
        with pytest.raises(TokenError, match="no longer holds this key, or may not sign with it"):
            await mixed.sign(mixed.token.keys[1])

    run(main())


def test_flags_we_do_not_know_are_refused_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with_rsa = bench(monkeypatch, StandInToken(Key(kind="rsa")))
        with pytest.raises(ProtocolError, match="unknown signature flags 0x8"):
            await with_rsa.served.sign(with_rsa.token.keys[0].token_key(), b"data", 8, Asker("ssh"))
        assert with_rsa.slots.calls == []

    run(main())


def test_a_missing_mechanism_has_a_substitute(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with_p256 = bench(monkeypatch, StandInToken(Key(kind="p256")))
        await with_p256.remember()
        with_p256.slots.fail_next("sign", refused(Verdict.MECHANISM))
        await with_p256.sign()
        assert with_p256.slots.operations.count("sign") == 2
        assert with_p256.slots.alive == [0]

    run(main())


def test_a_token_without_any_fitting_mechanism_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with_p256 = bench(monkeypatch, StandInToken(Key(kind="p256")))
        await with_p256.remember()
        with_p256.slots.fail_next("sign", refused(Verdict.MECHANISM), refused(Verdict.MECHANISM))
        with pytest.raises(TokenError, match="has no mechanism for ecdsa-sha2-nistp256 signatures"):
            await with_p256.sign()
        assert with_p256.slots.operations.count("sign") == 2

    run(main())


def test_a_signature_by_another_key_is_not_handed_out(plain: Bench) -> None:
    async def main() -> None:
        await plain.remember()
        key = plain.token.keys[0]
        advertised = key.token_key()
        # The module is confused: it answers for this key with another one.
        key.sign = Key().sign  # type: ignore[method-assign]
        with pytest.raises(ModuleUnreachableError, match="the signature does not match the key"):
            await plain.served.sign(advertised, b"data", 0, Asker("ssh"))
        assert plain.slots.operations.count("sign") == 2
        assert plain.served.state is TokenState.UNREACHABLE

    run(main())


def test_a_worker_that_was_confused_once_is_replaced(plain: Bench) -> None:
    async def main() -> None:
        await plain.remember()
        key = plain.token.keys[0]
        honest, answers = key.sign, [Key().sign, key.sign]
        key.sign = lambda *arguments: answers.pop(0)(*arguments)  # type: ignore[method-assign]
        await plain.sign()
        key.sign = honest  # type: ignore[method-assign]
        assert plain.slots.alive == [1]

    run(main())


def test_a_touch_that_was_not_given_in_time_is_not_waited_for_again(
    plain: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cards report it as CKR_USER_NOT_LOGGED_IN."""

    async def main() -> None:
        await plain.remember()
        monkeypatch.setattr("replug.token.serving.signing._TOUCH_WAITED", -1)
        plain.slots.fail_next("sign", refused(Verdict.NOT_LOGGED_IN))
        with pytest.raises(TokenError, match="not confirmed in time; touch it when it blinks"):
            await plain.sign()
        assert plain.slots.operations.count("sign") == 1
        # The card may be in any state; the next signature begins anew.
        await plain.sign()
        assert plain.slots.logins == [PIN, PIN]

    run(main())


def test_a_login_that_the_token_has_forgotten_is_made_again_once(plain: Bench) -> None:
    """Another program reset the card: it says so at once."""

    async def main() -> None:
        await plain.remember()
        plain.slots.fail_next("sign", refused(Verdict.NOT_LOGGED_IN), refused(Verdict.NOT_LOGGED_IN))
        with pytest.raises(TokenError):
            await plain.sign()
        assert plain.slots.operations.count("sign") == 2
        assert plain.slots.logins == [PIN, PIN]

    run(main())


def test_a_login_that_was_made_again_is_no_repair(plain: Bench) -> None:
    async def main() -> None:
        await plain.remember()
        plain.slots.fail_next("sign", refused(Verdict.NOT_LOGGED_IN), lost())
        await plain.sign()
        plain.slots.fail_next("sign", lost(), refused(Verdict.NOT_LOGGED_IN))
        await plain.sign()
        plain.slots.fail_next("sign", refused(Verdict.NOT_LOGGED_IN), lost(), lost())
        with pytest.raises(ModuleUnreachableError):
            await plain.sign()

    run(main())


def test_a_worker_lost_in_the_middle_of_a_signature(plain: Bench) -> None:
    async def main() -> None:
        await plain.remember()
        plain.slots.fail_next("sign", lost())
        await plain.sign()
        assert plain.slots.logins == [PIN, PIN]
        plain.slots.fail_next("sign", lost(), lost())
        with pytest.raises(ModuleUnreachableError, match="failed twice: the worker process ended"):
            await plain.sign()
        assert plain.served.state is TokenState.UNREACHABLE
        # The next request finds out whether it is well again.
        await plain.sign()
        assert plain.served.state is TokenState.READY

    run(main())


# A token that is out.


def test_signing_with_an_absent_token_says_so(plain: Bench) -> None:
    async def main() -> None:
        await plain.remember()
        plain.lose_worker()
        plain.slots.tokens.clear()
        with pytest.raises(TokenAbsentError, match="is in no slot; plug it in"):
            await plain.sign()
        assert plain.served.state is TokenState.ABSENT
        plain.slots.tokens.append(plain.token)
        await plain.sign()
        assert plain.served.state is TokenState.READY

    run(main())


def test_nothing_is_to_be_plugged_in_where_no_token_can_be_removed(plain: Bench) -> None:
    """A network HSM whose server is down."""

    async def main() -> None:
        plain.slots.removable = False
        await plain.remember()
        plain.lose_worker()
        plain.slots.tokens.clear()
        with pytest.raises(TokenAbsentError) as caught:
            await plain.sign()
        assert caught.value.next_step == ""

    run(main())


def test_while_a_token_is_known_to_be_out_requests_start_no_workers(
    plain: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        since_boot = [boottime()]
        for place in ("token.serving.presence", "token.serving.served", "doubles.stand_ins"):
            name = place if place.startswith("doubles") else f"replug.{place}"
            monkeypatch.setattr(f"{name}.boottime", lambda: since_boot[0], raising=False)

        async def refused_requests(count: int) -> int:
            """How many workers were started for them."""
            before = len(plain.slots.workers)
            for _ in range(count):
                with pytest.raises(TokenAbsentError, match="is in no slot; plug it in"):
                    await plain.sign()
            return len(plain.slots.workers) - before

        await plain.remember()
        plain.slots.tokens.clear()
        await refused_requests(1)
        since_boot[0] += 2
        # The worker that is there was started in the moment of the removal.
        assert await refused_requests(10) <= 2
        assert await refused_requests(10) == 0
        # Nor is one that was started while a card was put in: it may not have reached it.
        plain.served.may_be_back()
        assert 1 <= await refused_requests(1) <= 2
        since_boot[0] += 2
        assert await refused_requests(10) <= 2
        assert await refused_requests(10) == 0
        # A worker that has not found it for some time is not trusted either.
        since_boot[0] += 11
        assert 1 <= await refused_requests(10) <= 2
        plain.slots.tokens.append(plain.token)
        await plain.sign()

    run(main())


def test_waiting_for_the_token_to_be_back(plain: Bench) -> None:
    async def main() -> None:
        await plain.remember()
        await plain.served.wait_until_back()
        plain.served.left()
        waiting = asyncio.create_task(plain.served.wait_until_back())
        await settle()
        assert not waiting.done()
        plain.served.returned()
        await waiting
        # Who waits is told too when it is served no more: its request is then refused.
        plain.served.left()
        waiting = asyncio.create_task(plain.served.wait_until_back())
        await settle()
        plain.served.close()
        await waiting

    run(main())


# The end.


def test_forgetting_the_pin_ends_the_login_and_keeps_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        asking = bench(monkeypatch, person=Person(PIN))
        pin = await asking.remember()
        assert asking.served.forget_pin()
        assert pin.value == b""
        assert asking.slots.alive == []
        assert labels(asking.served) == ["key"]
        await asking.sign()
        assert len(asking.person.requests) == 1
        assert asking.served.forget_pin()
        assert not asking.served.forget_pin()

    run(main())


def test_closing_forgets_the_pin_and_ends_the_session(plain: Bench) -> None:
    async def main() -> None:
        pin = await plain.remember()
        plain.served.close()
        assert pin.value == b""
        assert plain.slots.alive == []
        with pytest.raises(TokenError, match='token "work" \\(serial 1\\) was removed from the agent'):
            await plain.sign()

    run(main())


def test_closing_refuses_who_waits_but_lets_end_what_is_under_way(plain: Bench) -> None:
    async def main() -> None:
        await plain.remember()
        gate = plain.slots.hold_next("sign")
        waiting = [asyncio.create_task(plain.sign()) for _ in range(3)]
        await gate.entered.wait()
        plain.served.close()
        gate.opened.set()
        first, *refusals = await asyncio.gather(*waiting, return_exceptions=True)
        assert first is None
        assert ["was removed from the agent" in str(refusal) for refusal in refusals] == [True] * 2
        assert plain.slots.logins == [PIN]
        assert 0 not in plain.slots.alive

    run(main())


def test_closing_refuses_who_waits_for_a_pin_and_does_not_send_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        asking = bench(monkeypatch, person=Person(PIN))
        answered = asyncio.Event()
        asking.person.may_answer = answered.wait()
        waiting = [asyncio.create_task(asking.sign()) for _ in range(3)]
        await asking.person.asked.wait()
        asking.served.close()
        answered.set()
        refusals = await asyncio.gather(*waiting, return_exceptions=True)
        assert ["was removed from the agent" in str(refusal) for refusal in refusals] == [True] * 3
        assert asking.slots.pins_sent == []
        assert asking.person.pins == []
        assert not asking.served.pin_remembered

    run(main())
