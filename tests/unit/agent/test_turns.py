"""Turns at asking the user."""

from __future__ import annotations

import asyncio

import pytest
from doubles.stand_ins import run, settle

from replug.agent.turns import MOST_WAITING, TooManyWaitingError, Turns
from replug.token.prompts.request import Origin

NOISY, QUIET, THIRD = Origin((1, 1), b"host"), Origin((1, 2)), Origin((1, 3))


class Questions:
    """Questions that are answered one by one, when the test says so."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.asked: list[str] = []
        self._answer = asyncio.Semaphore(0)

    def start(self, origin: Origin, name: str) -> asyncio.Task[None]:
        return asyncio.create_task(self._question(origin, name))

    async def _question(self, origin: Origin, name: str) -> None:
        async with self.turns.turn(origin):
            self.asked.append(name)
            await self._answer.acquire()

    async def answer(self) -> None:
        self._answer.release()
        await settle()


def test_a_question_of_another_origin_does_not_wait_behind_all_of_one() -> None:
    async def main() -> None:
        questions = Questions()
        tasks = [questions.start(NOISY, f"noisy {number}") for number in range(5)]
        await settle()
        tasks.append(questions.start(QUIET, "quiet"))
        tasks.append(questions.start(THIRD, "third"))
        await settle()
        assert questions.asked == ["noisy 0"]
        for _ in tasks:
            await questions.answer()
        assert questions.asked == [
            "noisy 0",
            "quiet",
            "third",
            *(f"noisy {number}" for number in range(1, 5)),
        ]
        await asyncio.gather(*tasks)

    run(main())


def test_a_few_of_one_origin_wait_and_more_are_refused_at_once() -> None:
    async def main() -> None:
        questions = Questions()
        tasks = [questions.start(NOISY, str(number)) for number in range(100)]
        quiet = questions.start(QUIET, "quiet")
        await settle()
        refused = [task for task in tasks if task.done()]
        assert len(refused) == len(tasks) - 1 - MOST_WAITING
        assert all(isinstance(task.exception(), TooManyWaitingError) for task in refused)
        await questions.answer()
        assert questions.asked == ["0", "quiet"]
        for _ in tasks:
            await questions.answer()
        await asyncio.gather(*tasks, quiet, return_exceptions=True)
        assert len(questions.asked) == 2 + MOST_WAITING

    run(main())


@pytest.mark.parametrize("moment", ["while it waits", "as its turn comes"])
def test_a_client_that_leaves_gives_its_turn_away(moment: str) -> None:
    async def main() -> None:
        questions = Questions()
        first, leaving, last = (questions.start(NOISY, name) for name in ("first", "leaving", "last"))
        await settle()
        if moment == "while it waits":
            leaving.cancel()
            await settle()
            await questions.answer()
        else:
            questions._answer.release()
            await asyncio.sleep(0)
            assert first.done()
            leaving.cancel()
            await settle()
        assert questions.asked == ["first", "last"]
        await questions.answer()
        await asyncio.gather(first, last)
        # Nobody is left, so the next one is asked at once.
        late = questions.start(QUIET, "late")
        await settle()
        assert questions.asked[-1] == "late"
        await questions.answer()
        await late

    run(main())
