"""Who of those that want something of a module has a worker of it, and who waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from replug.token.worker.client import Worker
from replug.token.worker.deadlines import Deadlines
from replug.token.worker.restarting import Lane
from replug.token.worker.starter import Starter

T = TypeVar("T")


class Supervisor:
    """Keeps the workers of one module; each does one operation at a time, and who waits is served in order.

    A module for cards has one worker: another process would bind the same card. One for a network HSM, or for
    keys in software, may have several, which sign at the same time.
    """

    def __init__(self, path: str, deadlines: Deadlines, workers: int = 1) -> None:
        """`path` is the module's canonical path. All but the first of the `workers` start when needed."""
        if workers < 1:
            raise ValueError(f"a module needs a worker, not {workers}")
        self._starter = Starter(path, deadlines)
        self._lanes = [Lane(self._starter) for _ in range(workers)]
        self._running: set[asyncio.Task[None]] = set()
        self._waiting: deque[tuple[asyncio.Future[Lane], Sequence[Lane]]] = deque()

    @property
    def busy(self) -> bool:
        """Whether who wants the first worker has to wait."""
        return self._lanes[0].busy

    async def attempt(
        self, operation: Callable[[Worker], Awaitable[T]], *, fresh: bool = False, anywhere: bool = False
    ) -> T:
        """Run `operation` on a live worker; if that worker fails, once more on a fresh one.

        It is the first worker, or with `anywhere` any that is free. With `fresh` it is a new one too.
        Raises TokenAbsentError or ModuleUnreachableError when the second attempt fails as well; what
        `operation` itself raises is a verdict and passes. Who is cancelled while waiting for a worker leaves
        the queue; what has begun goes on to its end.
        """
        lane = await self._take(self._lanes if anywhere else self._lanes[:1])
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(self._run(lane, operation, fresh, outcome))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return await outcome

    def restart(self) -> None:
        """End the workers, whose sessions are of no more use, when what is under way there has ended."""
        for lane in self._lanes:
            lane.restart()

    def close(self) -> None:
        """End all processes, for good; what still waits is refused."""
        self._starter.close()
        for lane in self._lanes:
            lane.close()

    async def _take(self, lanes: Sequence[Lane]) -> Lane:
        """One of `lanes`, busy from now on for who gets it."""
        for lane in lanes:
            if not lane.busy:
                lane.busy = True
                return lane
        turn: asyncio.Future[Lane] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, lanes))
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove((turn, lanes))
            else:
                self._give(turn.result())
            raise

    def _give(self, lane: Lane) -> None:
        """Let the first of those who can use `lane` have it."""
        for place, (turn, lanes) in enumerate(self._waiting):
            if lane in lanes and not turn.cancelled():
                del self._waiting[place]
                turn.set_result(lane)
                return
        lane.busy = False

    async def _run(
        self, lane: Lane, operation: Callable[[Worker], Awaitable[T]], fresh: bool, outcome: asyncio.Future[T]
    ) -> None:
        """Go on to the end, whether who waits for the `outcome` is still there or not."""
        try:
            result = await lane.attempt(operation, fresh=fresh)
        except asyncio.CancelledError:
            outcome.cancel()
            raise
        except Exception as error:
            if not outcome.done():
                outcome.set_exception(error)
        else:
            if not outcome.done():
                outcome.set_result(result)
        finally:
            lane.rest()
            self._give(lane)
