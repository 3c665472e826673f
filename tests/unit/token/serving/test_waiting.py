"""Who asked for a signature can show that the token is waited for, but not while its person is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from doubles.stand_ins import Person, run
from doubles.token_bench import Bench

from replug.token.errors import TokenError
from replug.token.prompts.request import Asker


class Waiting:
    """Remembers when the token was waited for, and when the person was asked."""

    def __init__(self, bench: Bench) -> None:
        self.events: list[str] = []
        self._bench = bench
        self._ask = bench.person.ask
        bench.person.ask = self.ask

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self.events.append("waiting")
        try:
            yield
        finally:
            self.events.append("over")

    async def ask(self, request):
        self.events.append("asked")
        return await self._ask(request)

    async def sign(self) -> None:
        key = self._bench.token.keys[0].token_key()
        await self._bench.served.sign(key, b"data", 0, Asker("ssh (pid 4711)"), self)


def test_the_token_is_waited_for_and_the_person_in_between(asking: Bench) -> None:
    waiting = Waiting(asking)
    run(waiting.sign())
    assert waiting.events == ["waiting", "over", "asked", "waiting", "over"]


def test_nobody_waits_for_the_token_when_the_person_cancels(plain: Bench) -> None:
    plain.person = plain.served._prompter = Person(None)
    waiting = Waiting(plain)
    with pytest.raises(TokenError):
        run(waiting.sign())
    assert waiting.events == ["waiting", "over", "asked"]
