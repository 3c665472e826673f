"""The one recovery mechanism: kill the worker, start a fresh one, try once more.

Whatever went wrong (a pulled token, a dead session, a hung or crashed module, pcscd restarted), a fresh
process heals it or nothing does. So there is no ladder of repairs, and no state to repair.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from replug.token.errors import (
    ModuleUnreachableError,
    TokenAbsentError,
    TokenError,
    WorkerLostError,
    WorkerRefusedError,
)
from replug.token.worker.client import WorkerClient
from replug.token.worker.frames import Verdict
from replug.token.worker.starter import Starter

log = logging.getLogger(__name__)

T = TypeVar("T")


class RestartingWorker:
    """One worker of a module, replaced when it fails. Whoever made it `busy` may use it."""

    def __init__(self, starter: Starter) -> None:
        self.busy = False
        self._starter = starter
        self._worker: WorkerClient | None = None
        self._restart_pending = False

    async def attempt(self, operation: Callable[[WorkerClient], Awaitable[T]], *, fresh: bool) -> T:
        """Run `operation` on the worker; if that fails, once more on a fresh one (`WorkerPool.attempt`)."""
        if fresh:
            self._discard()
        try:
            return await operation(await self._live_worker())
        except (WorkerLostError, WorkerRefusedError) as error:
            log.info("starting a fresh worker", extra={"path": self._starter.path, "why": str(error)})
            self._discard()
        try:
            return await operation(await self._live_worker())
        except (WorkerLostError, WorkerRefusedError) as error:
            self._discard()
            raise self._final(error) from error

    def restart(self) -> None:
        """End the worker; one that is busy, when what is under way has ended."""
        if self.busy:
            self._restart_pending = True
        else:
            self._discard()

    def release(self) -> None:
        """What was under way has ended; the worker is ended if a restart is pending."""
        if self._restart_pending:
            self._discard()

    def close(self) -> None:
        """End the worker now."""
        self._discard()

    async def _live_worker(self) -> WorkerClient:
        if self._worker is None or not self._worker.alive:
            self._worker = None
            self._worker = await self._starter.loaded_worker()
        return self._worker

    def _discard(self) -> None:
        self._restart_pending = False
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def _final(self, error: WorkerLostError | WorkerRefusedError) -> TokenError:
        if isinstance(error, WorkerRefusedError) and error.verdict is Verdict.TOKEN_ABSENT:
            return TokenAbsentError(error.detail, "plug it in")
        return ModuleUnreachableError(f"module {self._starter.path} failed twice: {error}")
