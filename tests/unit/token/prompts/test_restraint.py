"""Questions that are held back after others were declined."""

from __future__ import annotations

import asyncio

import pytest
from doubles.stand_ins import PIN, Person, run, settle

from replug.token.errors import DeclinedError, NobodyAskedError
from replug.token.identity import TokenFlag, TokenId
from replug.token.prompts.request import (
    AnyRequest,
    Asker,
    ConfirmRequest,
    HeldBackError,
    PinRequest,
)
from replug.token.prompts.restraint import Restraint

HERE, THERE = (
    Asker("ssh (pid 1)", executable=(1, "1")),
    Asker("ssh (pid 1)", executable=(1, "1"), host=b"host"),
)
TOKEN = TokenId("Maker", "Model", "1", "work")


def pin_of(asker: Asker) -> PinRequest:
    return PinRequest(TOKEN, TokenFlag(0), "key", asker)


def use_of(asker: Asker) -> ConfirmRequest:
    return ConfirmRequest("key", "SHA256:abc", asker)


class Desk:
    """A prompter in front of a person, and a clock that the test sets."""

    def __init__(self) -> None:
        self.person = Person()
        self.now = 1000.0
        self.restraint = Restraint(lambda: self.now)

    @property
    def questions(self) -> int:
        return len(self.person.requests) + len(self.person.confirmations)

    async def cancels(self, request: AnyRequest) -> bool:
        """Whether the person was asked; then they declined."""
        before = self.questions
        self.person.answers, self.person.agrees = [None], False
        try:
            if isinstance(request, PinRequest):
                await self.restraint.ask(self.person, request)
            else:
                assert not await self.restraint.confirm(self.person, request)
        except HeldBackError:
            assert self.questions == before
        except DeclinedError:
            pass
        return self.questions > before


@pytest.mark.parametrize("question", [pin_of, use_of])
def test_the_pauses_grow_and_are_for_one_origin_alone(question: type[PinRequest]) -> None:
    async def main() -> None:
        desk = Desk()
        asked = []
        for tick in range(100):  # ten seconds
            desk.now = 1000 + tick / 10
            if await desk.cancels(question(HERE)):  # type: ignore[call-arg, arg-type]
                asked.append(tick / 10)
        assert asked == [0, 0.1, 1.1, 3.1, 7.1]
        assert await desk.cancels(question(THERE))  # type: ignore[call-arg, arg-type]
        for _ in range(20):
            desk.now += 60
            assert await desk.cancels(question(HERE))  # type: ignore[call-arg, arg-type]

    run(main())


def test_what_the_refusal_says() -> None:
    async def main() -> None:
        desk = Desk()
        for _ in range(2):
            assert await desk.cancels(pin_of(HERE))
        with pytest.raises(HeldBackError) as refused:
            await desk.restraint.ask(desk.person, pin_of(HERE))
        assert str(refused.value) == (
            'token "work" (serial 1): the last questions of this program, for the same host, were declined; '
            "try again 1 s after the last one"
        )

    run(main())


def test_an_answer_ends_it_and_so_does_time() -> None:
    async def main() -> None:
        desk = Desk()
        for _ in range(2):
            assert await desk.cancels(pin_of(HERE))
        desk.now += 1
        desk.person.answers = [PIN]
        await desk.restraint.ask(desk.person, pin_of(HERE))
        for _ in range(2):
            assert await desk.cancels(use_of(HERE))
        desk.now += 1
        desk.person.agrees = True
        assert await desk.restraint.confirm(desk.person, use_of(HERE))
        for _ in range(2):
            assert await desk.cancels(use_of(HERE))
        assert not await desk.cancels(use_of(HERE))
        desk.now += 301
        for _ in range(2):
            assert await desk.cancels(use_of(HERE))

    run(main())


def test_a_question_that_is_withdrawn_counts_and_one_that_was_not_asked_does_not() -> None:
    async def main() -> None:
        desk = Desk()
        for _ in range(2):
            desk.person.may_answer = asyncio.Event().wait()
            asking = asyncio.create_task(desk.restraint.confirm(desk.person, use_of(HERE)))
            await settle()
            asking.cancel()
            await asyncio.wait([asking])
        with pytest.raises(HeldBackError):
            await desk.restraint.confirm(desk.person, use_of(HERE))

        async def nowhere(request: ConfirmRequest) -> bool:
            raise request.nobody_asked([NobodyAskedError("there is no display")])

        desk.person.confirm = nowhere  # type: ignore[method-assign]
        for _ in range(5):
            with pytest.raises(Exception, match="no way to ask"):
                await desk.restraint.confirm(desk.person, use_of(THERE))

    run(main())
