"""One prompt and one login for all who wait."""

from __future__ import annotations

import asyncio
import logging

import pytest
from doubles.stand_ins import (
    PIN,
    WRONG_PIN,
    run,
    settle,
)
from doubles.token_bench import Bench

from replug.token.errors import Rejection


def test_all_who_wait_share_one_prompt_and_one_login(asking: Bench) -> None:
    async def main() -> None:
        await asyncio.gather(*(asking.sign() for _ in range(8)))
        assert len(asking.person.requests) == 1
        assert asking.slots.logins == [PIN]
        assert asking.slots.operations.count("sign") == 8
        assert len(asking.slots.workers) == 1

    run(main())


def test_who_comes_while_the_prompt_is_open_waits_for_the_same(asking: Bench) -> None:
    async def main() -> None:
        answered = asyncio.Event()
        asking.person.may_answer = answered.wait()
        first = asyncio.create_task(asking.sign())
        await asking.person.asked.wait()
        second = asyncio.create_task(asking.sign())
        await settle()
        answered.set()
        await asyncio.gather(first, second)
        assert len(asking.person.requests) == 1
        assert asking.slots.logins == [PIN]

    run(main())


@pytest.mark.parametrize(
    ("answers", "words", "logins"),
    [
        ([None], "the PIN prompt was cancelled", []),
        ([WRONG_PIN, None], "the PIN prompt was cancelled", [WRONG_PIN]),
        ([WRONG_PIN, b"2", b"3"], "the PIN is wrong", [WRONG_PIN, b"2", b"3"]),
    ],
)
def test_a_failed_login_refuses_all_who_wait_and_not_the_next(
    asking: Bench, answers: list[bytes | None], words: str, logins: list[bytes]
) -> None:
    async def main() -> None:
        asking.person.answers = [*answers, PIN]
        refusals = await asyncio.gather(*(asking.sign() for _ in range(5)), return_exceptions=True)
        assert [words in str(refusal) for refusal in refusals] == [True] * 5
        assert asking.slots.logins == logins
        await asking.sign()
        assert len(asking.person.requests) == len(answers) + 1
        assert asking.slots.logins == [*logins, PIN]

    run(main())


def test_all_who_wait_share_the_prompt_after_a_wrong_pin(asking: Bench) -> None:
    async def main() -> None:
        asking.person.answers = [WRONG_PIN, PIN]
        await asyncio.gather(*(asking.sign() for _ in range(5)))
        assert [request.rejection for request in asking.person.requests] == [None, Rejection.WRONG]
        assert asking.slots.logins == [WRONG_PIN, PIN]

    run(main())


def test_nobody_is_asked_again_for_who_has_left(asking: Bench) -> None:
    async def main() -> None:
        asking.person.answers = [WRONG_PIN]
        login = asking.slots.hold_next("login")
        signing = asyncio.create_task(asking.sign())
        await login.entered.wait()
        signing.cancel()
        await settle()
        login.opened.set()
        await settle()
        assert len(asking.person.requests) == 1
        assert asking.slots.logins == [WRONG_PIN]

    run(main())


def test_the_one_who_was_first_may_leave(asking: Bench) -> None:
    async def main() -> None:
        answered = asyncio.Event()
        asking.person.may_answer = answered.wait()
        first = asyncio.create_task(asking.sign())
        second = asyncio.create_task(asking.sign())
        await asking.person.asked.wait()
        await settle()
        first.cancel()
        answered.set()
        await second
        assert first.cancelled()
        assert asking.slots.logins == [PIN]

    run(main())


def test_a_prompt_that_nobody_waits_for_any_more_is_closed(
    asking: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        answered = asyncio.Event()
        asking.person.may_answer = answered.wait()
        waiting = [asyncio.create_task(asking.sign()) for _ in range(2)]
        await asking.person.asked.wait()
        await settle()
        for signing in waiting:
            signing.cancel()
        await settle()
        answered.set()
        await settle()
        assert asking.slots.logins == []
        # The next one is asked for anew.
        asking.person.may_answer = None
        await asking.sign()
        assert len(asking.person.requests) == 2
        assert asking.slots.logins == [PIN]

    with caplog.at_level(logging.ERROR, logger="asyncio"):
        run(main())
    assert caplog.records == []


@pytest.mark.parametrize("leaves", ["client", "token"])
def test_nobody_is_asked_for_who_left_before_the_prompt(asking: Bench, leaves: str) -> None:
    async def main() -> None:
        first, before_the_prompt = asking.slots.hold_next("open"), asking.slots.hold_next("flags")
        signing = asyncio.create_task(asking.sign())
        first.opened.set()
        await before_the_prompt.entered.wait()
        if leaves == "client":
            signing.cancel()
        else:
            asking.served.close()
        await settle()
        before_the_prompt.opened.set()
        await asyncio.wait([signing])
        await settle()
        assert asking.person.requests == []

    run(main())


def test_the_prompt_says_what_it_is_for(asking: Bench) -> None:
    async def main() -> None:
        await asking.sign()
        [request] = asking.person.requests
        assert request.text() == (
            'PIN for token "work" (serial 1)\nto use the key key\nasked for by ssh (pid 4711)\nPIN: '
        )

    run(main())
