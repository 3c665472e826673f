"""The one recovery mechanism: kill the worker, start a fresh one, try once more.

Whatever went wrong (a pulled token, a dead session, a hung or crashed module, pcscd restarted), a fresh
process heals it or nothing does. So there is no ladder of repairs, and no state to repair.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from replug.token.client import Worker
from replug.token.deadlines import Deadlines
from replug.token.errors import (
    ModuleUnreachableError,
    TokenAbsentError,
    TokenError,
    WorkerLostError,
    WorkerRefusedError,
)
from replug.token.frames import Verdict

log = logging.getLogger(__name__)

T = TypeVar("T")


class Supervisor:
    """Keeps one worker for one module, and sends it one operation at a time, in the order of arrival."""

    def __init__(self, path: str, deadlines: Deadlines) -> None:
        """`path` is the module's canonical path."""
        self._path = path
        self._deadlines = deadlines
        self._turn = asyncio.Lock()
        self._worker: Worker | None = None
        self._spare: Worker | None = None
        self._worn = False
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether an operation is under way."""
        return self._turn.locked()

    async def attempt(self, operation: Callable[[Worker], Awaitable[T]], *, fresh: bool = False) -> T:
        """Run `operation` on a live worker; if that worker fails, once more on a fresh one.

        With `fresh` the first worker is a new one too. Raises TokenAbsentError or ModuleUnreachableError
        when the second attempt fails as well; what `operation` itself raises is a verdict and passes.
        Who is cancelled while waiting for its turn leaves the queue; what has begun goes on to its end.
        """
        await self._turn.acquire()
        running = asyncio.create_task(self._attempt_in_turn(operation, fresh))
        running.add_done_callback(self._turn_ended)
        return await asyncio.shield(running)

    def restart(self) -> None:
        """End the worker, whose sessions are of no more use, when what is under way has ended."""
        if self.busy:
            self._worn = True
        else:
            self._discard()

    def close(self) -> None:
        """End all processes, for good; what still waits is refused."""
        self._closed = True
        self._discard()
        if self._spare is not None:
            self._spare.kill()
            self._spare = None

    async def _attempt_in_turn(self, operation: Callable[[Worker], Awaitable[T]], fresh: bool) -> T:
        if fresh:
            self._discard()
        try:
            return await operation(await self._live_worker())
        except (WorkerLostError, WorkerRefusedError) as error:
            log.info("starting a fresh worker", extra={"path": self._path, "why": str(error)})
            self._discard()
        try:
            return await operation(await self._live_worker())
        except (WorkerLostError, WorkerRefusedError) as error:
            self._discard()
            raise self._final(error) from error

    def _turn_ended(self, attempt: asyncio.Task[T]) -> None:
        if self._worn:
            self._discard()
        self._turn.release()
        # Taken here too, in case that who asked is gone.
        attempt.cancelled() or attempt.exception()

    async def _live_worker(self) -> Worker:
        if self._closed:
            raise TokenError(f"{self._path} was removed from the agent")
        if self._worker is not None and self._worker.alive:
            return self._worker
        # The spare has done all that takes time but loading the module, which must see the world as it is
        # now. That a spare is lost says nothing about the module, so it is not a failure.
        self._worker, self._spare = self._spare, None
        if self._worker is not None and self._worker.alive:
            with contextlib.suppress(WorkerLostError):
                return await self._loaded(self._worker)
        try:
            self._worker = Worker(self._deadlines)
        except OSError as error:
            raise ModuleUnreachableError(
                f"no worker process can be started: {error.strerror}",
                "see the limits of the agent (ulimit -a)",
            ) from error
        return await self._loaded(self._worker)

    async def _loaded(self, worker: Worker) -> Worker:
        """`worker` with its module; the next spare starts only then, so as not to compete with it."""
        try:
            await worker.load(self._path)
        except WorkerRefusedError as refused:
            if refused.verdict is Verdict.NOT_A_MODULE:
                self._discard()
                raise TokenError(f"{self._path} is not a PKCS#11 module: {refused.detail}") from refused
            raise
        if self._closed:
            self._discard()
            raise TokenError(f"{self._path} was removed from the agent")
        with contextlib.suppress(OSError):
            self._spare = Worker(self._deadlines)
        return worker

    def _discard(self) -> None:
        self._worn = False
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def _final(self, error: WorkerLostError | WorkerRefusedError) -> TokenError:
        if isinstance(error, WorkerRefusedError) and error.verdict is Verdict.TOKEN_ABSENT:
            return TokenAbsentError(error.detail, "plug it in")
        return ModuleUnreachableError(f"module {self._path} failed twice: {error}")
