"""Lets several callers wait for the same task; a caller that is cancelled does not cancel it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


async def result_of(task: asyncio.Task[T]) -> T:
    """What `task` returns or raises. It goes on to its end when the caller is cancelled.

    asyncio.shield() would then report as unhandled what the task raises.
    """
    ended = asyncio.get_running_loop().create_future()

    def task_ended(task: asyncio.Task[T]) -> None:
        task.cancelled() or task.exception()  # taken here, too: the caller may be gone
        if not ended.done():
            ended.set_result(None)

    task.add_done_callback(task_ended)
    await ended
    return task.result()


class StoppedError(Exception):
    """The attempt was stopped from outside."""


class SharedAttempt:
    """An attempt that is made once for all callers that wait, and has the same outcome for all of them.

    A caller that arrives after it ends starts a new one. While it can safely be cancelled, it is cancelled
    once nobody is waiting.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._waiting = 0
        self._stoppable = False
        self._unwanted = False

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return self._task is None and not self._waiting

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
            await result_of(task)
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
        """For the part of the attempt that can safely be cancelled; not begun if nobody is waiting."""
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

    def _ended(self, _task: asyncio.Task[None]) -> None:
        self._task = None
