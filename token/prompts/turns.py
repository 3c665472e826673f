"""Turns at asking the user: one question at a time at each place, and nobody's keep others waiting long."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from replug.token.prompts.request import AnyRequest, Origin
from replug.token.turns import FairSemaphore, one_less

MOST_WAITING = 8
"""Questions of one origin that wait at one place; more are refused at once."""
_QUESTIONS = 3  # that may be answered too late before one that waits for its turn is refused


class QuestionTurns:
    """Whose turn it is at each terminal and display."""

    def __init__(self, timeout: float) -> None:
        """`timeout` is how long a question may stay unanswered, in seconds."""
        self._longest = _QUESTIONS * timeout
        self._turns: WeakValueDictionary[str, FairSemaphore] = WeakValueDictionary()
        self._waiting: Counter[tuple[str, Origin]] = Counter()

    @asynccontextmanager
    async def turn(self, place: str, request: AnyRequest) -> AsyncIterator[None]:
        """Wait for a turn at `place`, and have it; PromptError."""
        turn = self._turns.setdefault(place, FairSemaphore(1))
        await self._wait(turn, place, request)
        try:
            yield
        finally:
            turn.release()

    async def _wait(self, turn: FairSemaphore, place: str, request: AnyRequest) -> None:
        who = place, request.asker.origin
        if self._waiting[who] >= MOST_WAITING:
            raise request.failure(
                f"{MOST_WAITING} questions of the same program and host are waiting for an answer",
                "answer them, or end the program that asks",
            )
        self._waiting[who] += 1
        try:
            async with asyncio.timeout(self._longest):
                await turn.acquire()
        except TimeoutError:
            raise request.failure(f"{place} is in use by another question") from None
        finally:
            one_less(self._waiting, who)
