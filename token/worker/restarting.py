"""A worker that can be replaced: the process is disposable, its place in the pool is not."""

from __future__ import annotations

import asyncio
from typing import Any

from replug.token.worker.client import WorkerClient
from replug.token.worker.starter import Starter


class RestartingWorker:
    """One worker of a module. The caller that took it from the pool may use it, and replace its process."""

    def __init__(self, starter: Starter) -> None:
        self.busy = False
        self.restart_pending = False
        """Whether the process is to be ended when the worker is given back."""
        self.task: asyncio.Task[Any] | None = None
        """What uses it now; kept here, as the event loop has only weak references to tasks."""
        self._starter = starter
        self._worker: WorkerClient | None = None

    async def live(self, *, patient: bool = False) -> WorkerClient:
        """The process with the module loaded, started if there is none. As `Starter.loaded_worker`."""
        if self._worker is None or not self._worker.alive:
            self._worker = None
            self._worker = await self._starter.loaded_worker(patient=patient)
        return self._worker

    @property
    def last_sign(self) -> float | None:
        """When its process last showed a sign of life, on the loop's clock; None if it has nothing to do."""
        return None if self._worker is None else self._worker.last_sign

    def discard(self) -> None:
        """End the process now."""
        self.restart_pending = False
        if self._worker is not None:
            self._worker.kill()
            self._worker = None
