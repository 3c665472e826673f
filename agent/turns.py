"""Turns at asking the user: one question at a time, and no origin's questions keep the others' waiting."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from replug.token.prompts.request import Origin

MOST_WAITING = 8
"""Questions of one origin that wait; more are refused at once."""


class TooManyWaitingError(Exception):
    """So many questions of this origin wait already."""


class Turns:
    """Origins take turns; the questions of one of them are asked in order."""

    def __init__(self) -> None:
        self._busy = False
        self._waiting: OrderedDict[Origin, deque[asyncio.Future[None]]] = OrderedDict()
        """By origin, the one that is next first."""

    @asynccontextmanager
    async def turn(self, origin: Origin) -> AsyncIterator[None]:
        """Wait for a turn, and have it; TooManyWaitingError."""
        if self._busy:
            await self._wait(origin)
        self._busy = True
        try:
            yield
        finally:
            self._pass_on(origin)

    async def _wait(self, origin: Origin) -> None:
        waiting = self._waiting.setdefault(origin, deque())
        if len(waiting) >= MOST_WAITING:
            raise TooManyWaitingError
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                waiting.remove(turn)
                self._forget_if_empty(origin)
            else:  # its turn came at the same moment
                self._pass_on(origin)
            raise

    def _pass_on(self, origin: Origin) -> None:
        """Give the next turn to another origin if one waits."""
        if origin in self._waiting:
            self._waiting.move_to_end(origin)
        if not self._waiting:
            self._busy = False
            return
        chosen = next(iter(self._waiting))
        # A cancelled one is still listed until its task runs; it has not had its turn.
        turn = next((turn for turn in self._waiting[chosen] if not turn.done()), None)
        if turn is None:
            del self._waiting[chosen]
            self._pass_on(origin)
            return
        self._waiting[chosen].remove(turn)
        self._forget_if_empty(chosen)
        turn.set_result(None)

    def _forget_if_empty(self, origin: Origin) -> None:
        if origin in self._waiting and not self._waiting[origin]:
            del self._waiting[origin]
