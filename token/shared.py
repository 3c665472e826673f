"""One attempt for all who wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any


class StoppedError(Exception):
    """The attempt was stopped from outside."""


class SharedAttempt:
    """An attempt that is made once however many wait, and ends the same way for all of them.

    Who comes after its end starts another. In its stoppable part it is stopped when nobody waits any more.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._waiting = 0
        self._stoppable = False
        self._unwanted = False

    async def join(self, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for the attempt under way, else for the one that `start` makes; raises what it raises.

        StoppedError after `stop`.
        """
        if self._task is None:
            self._task = asyncio.create_task(start())
            self._task.add_done_callback(self._ended)
        task = self._task
        self._unwanted = False
        self._waiting += 1
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise StoppedError from None
            raise
        finally:
            self._waiting -= 1
            if self._waiting == 0:
                self.stop()

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """For the part of the attempt that can be given up without harm; not begun if nobody wants it."""
        if self._unwanted:
            raise asyncio.CancelledError
        self._stoppable = True
        try:
            yield
        finally:
            self._stoppable = False

    def stop(self) -> None:
        """Stop the attempt, if it is in its stoppable part or before it."""
        self._unwanted = True
        if self._task is not None and self._stoppable:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        # Taken here too, in case that everybody who waited is gone.
        task.cancelled() or task.exception()
