"""A login that meets something else: another login, a glitch of the module, a client that is gone."""

from __future__ import annotations

import asyncio

import pytest
from doubles.stand_ins import PIN, WRONG_PIN, Person, run
from doubles.token_bench import bench

from replug.token.errors import ModuleUnreachableError


def test_a_typed_pin_that_was_not_needed_does_not_replace_the_verified_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        person, answered = Person(WRONG_PIN), asyncio.Event()
        person.may_answer = answered.wait()
        one = bench(monkeypatch, person=person)
        signing = asyncio.create_task(one.sign())
        await person.asked.wait()
        verified = await one.remember()
        answered.set()
        await signing
        assert one.pin is verified
        one.lose_worker()
        await one.sign()
        assert one.slots.logins == [PIN, PIN]

    run(main())


def test_a_token_that_shows_no_keys_for_a_moment_keeps_its_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        one = bench(monkeypatch)
        verified = await one.remember()
        one.lose_worker()
        keys, one.token.keys = one.token.keys, []
        with pytest.raises(ModuleUnreachableError, match="shows none of its keys"):
            await one.served.read()
        one.token.keys = keys
        await one.sign()
        assert one.pin is verified

    run(main())


def test_a_key_that_did_not_sign_once_is_offered_again_after_a_replug(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        one = bench(monkeypatch)
        one.served.seen(one.token.flags)
        await one.served.read()
        one.token.keys[0].signs = False
        await one.remember()
        assert one.served.keys == {}
        one.token.keys[0].signs = True
        one.lose_worker()
        one.served.left()
        one.served.seen(one.token.flags)
        await one.served.read()
        await one.sign()

    run(main())
