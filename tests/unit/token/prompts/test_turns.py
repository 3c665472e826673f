"""Turns at asking the user, at each place."""

from __future__ import annotations

import asyncio

import pytest
from doubles.stand_ins import run, settle

from replug.token.errors import PromptError
from replug.token.prompts.request import Asker, ConfirmRequest
from replug.token.prompts.turns import MOST_WAITING, QuestionTurns
from replug.token.requester import Requester, requester

NOISY, QUIET, THIRD = (
    Asker(name, executable=(1, str(place))) for place, name in enumerate(("noisy", "quiet", "third"))
)


class Questions:
    """Questions that are answered one by one, when the test says so."""

    def __init__(self, timeout: float = 60) -> None:
        self.turns = QuestionTurns(timeout)
        self.asked: list[str] = []
        self._answer = asyncio.Semaphore(0)

    def start(self, asker: Asker, name: str, place: str = "desk") -> asyncio.Task[None]:
        return asyncio.create_task(self._question(asker, name, place))

    async def _question(self, asker: Asker, name: str, place: str) -> None:
        requester.set(Requester(asker.executable, 1))  # as the dispatcher does
        async with self.turns.turn(place, ConfirmRequest(name, "SHA256:abc", asker)):
            self.asked.append(name)
            await self._answer.acquire()

    async def answer(self) -> None:
        self._answer.release()
        await settle()


def test_a_question_of_another_program_does_not_wait_behind_all_of_one() -> None:
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


def test_places_do_not_wait_for_each_other() -> None:
    async def main() -> None:
        questions = Questions()
        tasks = [questions.start(NOISY, place, place) for place in ("here", "there")]
        await settle()
        assert questions.asked == ["here", "there"]
        for _ in tasks:
            await questions.answer()
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
        assert all("are waiting for an answer" in str(task.exception()) for task in refused)
        await questions.answer()
        assert questions.asked == ["0", "quiet"]
        for _ in tasks:
            await questions.answer()
        await asyncio.gather(*tasks, quiet, return_exceptions=True)
        assert len(questions.asked) == 2 + MOST_WAITING

    run(main())


def test_a_client_that_leaves_gives_its_turn_away() -> None:
    async def main() -> None:
        questions = Questions()
        first, leaving, last = (questions.start(NOISY, name) for name in ("first", "leaving", "last"))
        await settle()
        leaving.cancel()
        await settle()
        await questions.answer()
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


def test_nobody_waits_for_ever() -> None:
    async def main() -> None:
        questions = Questions(timeout=0.01)
        first = questions.start(NOISY, "first")
        await settle()
        with pytest.raises(PromptError, match="desk is in use by another question"):
            await questions.start(QUIET, "second")
        first.cancel()
        await asyncio.wait([first])

    run(main())
