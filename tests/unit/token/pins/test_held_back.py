"""PIN prompts of a client whose last ones were cancelled, and what others notice of that."""

from __future__ import annotations

import asyncio

import pytest
from doubles.stand_ins import PIN, run, settle
from doubles.token_bench import Bench

from replug.token.errors import DeclinedError
from replug.token.prompts.request import Asker, HeldBackError, Origin
from replug.token.prompts.restraint import RestrainedPrompter

BOMBER = Asker("ssh (pid 1)", origin=Origin((1, 1), b"host"))
USER = Asker("ssh (pid 2)", origin=Origin((1, 1)))


@pytest.fixture
def bombed(asking: Bench) -> Bench:
    """A token whose PIN prompts of BOMBER are held back."""
    asking.served._prompter = RestrainedPrompter(asking.person, lambda: 1000.0)

    async def main() -> None:
        asking.person.answers = [None, None]
        for _ in range(2):
            with pytest.raises(DeclinedError):
                await sign(asking, BOMBER)

    run(main())
    return asking


async def sign(bench: Bench, asker: Asker) -> bytes:
    return await bench.served.sign(bench.token.keys[0].token_key(), b"data", 0, asker)


def test_prompts_that_are_cancelled_come_ever_more_slowly(bombed: Bench) -> None:
    async def main() -> None:
        for _ in range(25):
            with pytest.raises(HeldBackError, match="the last questions of this program, for the same host"):
                await sign(bombed, BOMBER)
        assert len(bombed.person.requests) == 2
        assert bombed.slots.pins_sent == []

    run(main())


@pytest.mark.parametrize("first", [BOMBER, USER])
def test_another_client_is_asked_at_the_same_moment(bombed: Bench, first: Asker) -> None:
    async def main() -> None:
        second = USER if first is BOMBER else BOMBER
        bombed.person.answers = [PIN]
        signing = {id(asker): asyncio.create_task(sign(bombed, asker)) for asker in (first, second)}
        await settle()
        assert await signing[id(USER)]
        assert len(bombed.person.requests) == 3
        assert bombed.person.requests[-1].asker is USER
        await asyncio.gather(*signing.values(), return_exceptions=True)

    run(main())
