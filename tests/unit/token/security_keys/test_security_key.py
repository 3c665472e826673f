"""A FIDO key and its authenticator: PIN, tries, touch, turns, and what is said of a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from doubles.sk_helper import StandInHelper
from doubles.stand_ins import Key, Person, run, settle

from replug.protocol.keys import SkPublicKey
from replug.protocol.private_keys import SkFlag
from replug.token.errors import (
    DeclinedError,
    PinRejectedError,
    Rejection,
    TokenError,
    WorkerLostError,
    WorkerSilentError,
)
from replug.token.pins.lifetime import ForgetOn
from replug.token.pins.pin import PinCache
from replug.token.pins.policy import PinPolicy
from replug.token.prompts.request import Asker
from replug.token.security_keys.authenticators import Authenticators, plugged_in
from replug.token.security_keys.security_key import SecurityKey, SkRequest

PIN = b"2468"
KEY = Key()
PUBLIC = SkPublicKey(KEY.public, "ssh:")  # type: ignore[arg-type]


class Bench:
    def __init__(self) -> None:
        self.helper = StandInHelper(KEY)
        self.person = Person()
        self.devices = {("hidraw0", 1)}
        self.pins = PinCache(lambda: None)
        self.policy = PinPolicy()
        helper: Any = self.helper
        self.authenticators = Authenticators(helper, lambda: frozenset(self.devices))
        self.key = self.another()
        self.opened: list[bytearray] = []
        self.touches: list[str] = []

    def another(self) -> SecurityKey:
        return SecurityKey(
            "internal", PUBLIC, self.authenticators, self.pins, self.person, lambda _: self.policy
        )

    def private_key(self) -> bytearray:
        self.opened.append(bytearray(b"handle"))
        return self.opened[-1]

    @contextmanager
    def touching(self) -> Iterator[None]:
        self.touches.append("begins")
        try:
            yield
        finally:
            self.touches.append("ends")

    async def sign(self, key: SecurityKey | None = None) -> bytes:
        flags = SkFlag.USER_PRESENCE_REQUIRED
        asker = Asker("ssh (pid 1)")
        request = SkRequest(self.private_key, flags, b"data", "id_sk", asker, self.touching, 45)
        return await (key or self.key).sign(request)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_signature_wipes_what_it_needed(bench: Bench) -> None:
    assert PUBLIC.algorithm.encode() in run(bench.sign())
    assert bench.helper.sent == [b""]
    assert bench.opened == [bytearray(6)]
    assert bench.touches == ["begins", "ends"]


def test_the_pin_is_asked_for_when_it_is_wanted_and_then_remembered(bench: Bench) -> None:
    async def main() -> None:
        bench.helper.pin = PIN
        bench.person.answers = [PIN]
        await bench.sign()
        await bench.sign()
        assert bench.helper.sent == [b"", PIN, PIN]
        [request] = bench.person.requests
        assert request.facts() == [
            "PIN for security key",
            "to use the key id_sk",
            "asked for by ssh (pid 1)",
        ]
        assert bench.key.pin_remembered
        assert bench.key.forget_pin()
        assert bench.person.pins[0].value == b""

    run(main())


def test_those_who_wait_for_the_same_pin_are_asked_once(bench: Bench) -> None:
    async def main() -> None:
        bench.helper.pin = PIN
        bench.person.answers = [PIN]
        answers = asyncio.Event()
        bench.person.may_answer = answers.wait()
        signing = [asyncio.create_task(bench.sign()) for _ in range(3)]
        await settle()
        assert bench.helper.sent == [b""] * 3
        answers.set()
        await asyncio.gather(*signing)
        assert len(bench.person.requests) == 1
        assert bench.helper.sent == [b""] * 3 + [PIN] * 3
        assert bench.helper.most == 1

    run(main())


def test_one_question_for_a_request_and_no_third_wrong_pin(bench: Bench) -> None:
    async def main() -> None:
        bench.helper.pin = PIN
        bench.person.answers = [b"1", b"2", PIN]
        for _ in range(2):
            with pytest.raises(PinRejectedError, match="security key: the PIN is wrong; one try was spent"):
                await bench.sign()
        with pytest.raises(TokenError, match="2 wrong PINs were sent, and a third is not; take it out"):
            await bench.sign(bench.another())  # whatever key it is for
        assert bench.helper.sent == [b"", b"1", b"", b"2", b""]
        bench.devices = {("hidraw0", 2)}
        await bench.sign()
        assert bench.helper.sent[-1] == PIN
        assert [request.rejection for request in bench.person.requests] == [None] * 3

    run(main())


def test_a_right_pin_between_wrong_ones_counts_anew(bench: Bench) -> None:
    async def main() -> None:
        bench.helper.pin = PIN
        for answers in ([b"1"], [PIN], [b"2"], [PIN]):
            bench.key.forget_pin()
            bench.person.answers = answers
            try:
                await bench.sign()
            except PinRejectedError:
                assert answers != [PIN]

    run(main())


def test_the_same_wrong_pin_is_not_sent_again(bench: Bench) -> None:
    async def main() -> None:
        bench.helper.pin = PIN
        bench.person.answers = [b"1"]
        with pytest.raises(PinRejectedError):
            await bench.sign()
        bench.person.answers = [b"1", PIN]
        await bench.sign()
        assert bench.helper.sent == [b"", b"1", b"", PIN]

    run(main())


def test_a_remembered_pin_that_was_changed_is_sent_once(bench: Bench) -> None:
    async def main() -> None:
        bench.helper.pin = PIN
        bench.person.answers = [PIN]
        await bench.sign()
        bench.helper.pin = b"new"
        bench.person.answers = [b"new"]
        await bench.sign()
        assert bench.helper.sent == [b"", PIN, PIN, b"new"]
        assert bench.person.requests[-1].rejection is Rejection.REMEMBERED

    run(main())


def test_a_pin_that_got_no_answer_is_not_sent_again(bench: Bench) -> None:
    async def main() -> None:
        bench.helper.pin = PIN
        bench.person.answers = [PIN]
        await bench.sign()
        bench.helper.error = WorkerLostError("gone")
        for _ in range(2):
            with pytest.raises(TokenError, match="security key: gone"):
                await bench.sign()
        bench.helper.error = None
        bench.person.answers = [None]
        with pytest.raises(DeclinedError):
            await bench.sign()
        assert bench.helper.sent == [b"", PIN, PIN, PIN]

    run(main())


def test_what_the_policy_says_holds(bench: Bench) -> None:
    async def main() -> None:
        bench.policy = PinPolicy(forget_on=frozenset({ForgetOn.SUSPEND}))
        bench.helper.pin = PIN
        bench.person.answers = [PIN]
        await bench.sign()
        bench.key.forget_pin_if(ForgetOn.SCREEN_LOCK)
        assert bench.key.pin_remembered
        bench.key.forget_pin_if(ForgetOn.SUSPEND)
        assert not bench.key.pin_remembered

    run(main())


@pytest.mark.parametrize(
    ("error", "complaint", "reason"),
    [
        (60, "", "no security key that has this key is plugged in; plug it in, and try again"),
        (59, "", "security key: it cannot make this signature; use another key"),
        (4, "dlopen failed", "security key: it, or its library, has failed: dlopen failed; take it out"),
        (12, "", "security key: ssh-sk-helper reports error 12; take it out and put it in, and try again"),
        (WorkerSilentError("silent"), "", "security key: it was not touched within 45 s; touch it when it"),
        (WorkerLostError("gone"), "", "security key: gone; try again"),
    ],
)
def test_a_failure_in_words(bench: Bench, error: int | Exception, complaint: str, reason: str) -> None:
    bench.helper.error, bench.helper.complaint = error, complaint
    with pytest.raises(TokenError) as caught:
        run(bench.sign())
    assert str(caught.value).startswith(reason)
    assert bench.opened == [bytearray(6)]
    assert bench.touches == ["begins", "ends"]


def test_a_signature_of_something_else(bench: Bench) -> None:
    async def main() -> None:
        request = SkRequest(bench.private_key, SkFlag(0), b"other data", "", Asker(), bench.touching, 45)
        with pytest.raises(TokenError, match="its signature is wrong: the signature does not match"):
            await bench.key.sign(request)

    run(main())


def test_one_that_is_stopped_says_why(bench: Bench) -> None:
    """While it waits for a touch, for its turn, or for the PIN."""

    async def main() -> None:
        bench.helper.touched.clear()
        signing = [asyncio.create_task(bench.sign()) for _ in range(2)]
        await settle()
        assert bench.helper.running == 1
        bench.key.stop("the agent was locked meanwhile")
        outcomes = await asyncio.gather(*signing, return_exceptions=True)
        assert [str(one) for one in outcomes] == ["security key: the agent was locked meanwhile"] * 2
        bench.helper.touched.set()
        bench.helper.pin = PIN
        bench.person.may_answer = asyncio.Event().wait()
        asking = asyncio.create_task(bench.sign())
        await bench.person.asked.wait()
        bench.key.stop("the key was removed meanwhile")
        with pytest.raises(TokenError, match="the key was removed meanwhile"):
            await asking

    run(main())


def test_devices_are_looked_at() -> None:
    assert all(name.startswith("hidraw") for name, _ in plugged_in())
