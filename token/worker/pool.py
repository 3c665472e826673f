"""Hands a module's workers to callers, first come first served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from replug.token.worker.client import WorkerClient
from replug.token.worker.deadlines import Deadlines
from replug.token.worker.restarting import RestartingWorker
from replug.token.worker.starter import Starter

T = TypeVar("T")


class WorkerPool:
    """Keeps the workers of one module; each does one operation at a time, and who waits is served in order.

    A module for cards has one worker: another process would bind the same card. One for a network HSM, or for
    keys in software, may have several, which sign at the same time.
    """

    def __init__(self, path: str, deadlines: Deadlines, workers: int = 1) -> None:
        """`path` is the module's canonical path. All but the first of the `workers` start when needed."""
        if workers < 1:
            raise ValueError(f"a module needs a worker, not {workers}")
        self._starter = Starter(path, deadlines)
        self._workers = [RestartingWorker(self._starter) for _ in range(workers)]
        self._running: set[asyncio.Task[None]] = set()
        self._waiting: deque[tuple[asyncio.Future[RestartingWorker], Sequence[RestartingWorker]]] = deque()

    @property
    def busy(self) -> bool:
        """Whether who wants the first worker has to wait."""
        return self._workers[0].busy

    async def attempt(
        self,
        operation: Callable[[WorkerClient], Awaitable[T]],
        *,
        fresh: bool = False,
        anywhere: bool = False,
    ) -> T:
        """Run `operation` on a live worker; if that worker fails, once more on a fresh one.

        It is the first worker, or with `anywhere` any that is free. With `fresh` it is a new one too.
        Raises TokenAbsentError or ModuleUnreachableError when the second attempt fails as well; what
        `operation` itself raises is a verdict and passes. Who is cancelled while waiting for a worker leaves
        the queue; what has begun goes on to its end.
        """
        worker = await self._take(self._workers if anywhere else self._workers[:1])
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(self._run(worker, operation, fresh, outcome))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return await outcome

    def restart(self) -> None:
        """End the workers, whose sessions are of no more use, when what is under way there has ended."""
        for worker in self._workers:
            worker.restart()

    def close(self) -> None:
        """End all processes, for good; what still waits is refused."""
        self._starter.close()
        for worker in self._workers:
            worker.close()

    async def _take(self, workers: Sequence[RestartingWorker]) -> RestartingWorker:
        """One of `workers`, busy from now on for who gets it."""
        for worker in workers:
            if not worker.busy:
                worker.busy = True
                return worker
        turn: asyncio.Future[RestartingWorker] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, workers))
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove((turn, workers))
            else:
                self._give(turn.result())
            raise

    def _give(self, worker: RestartingWorker) -> None:
        """Let the first of those who can use `worker` have it."""
        for place, (turn, workers) in enumerate(self._waiting):
            if worker in workers and not turn.cancelled():
                del self._waiting[place]
                turn.set_result(worker)
                return
        worker.busy = False

    async def _run(
        self,
        worker: RestartingWorker,
        operation: Callable[[WorkerClient], Awaitable[T]],
        fresh: bool,
        outcome: asyncio.Future[T],
    ) -> None:
        """Go on to the end, whether who waits for the `outcome` is still there or not."""
        try:
            result = await worker.attempt(operation, fresh=fresh)
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
            worker.release()
            self._give(worker)
