"""Starting the workers of one module."""

from __future__ import annotations

import contextlib

from replug.token.client import Worker
from replug.token.deadlines import Deadlines
from replug.token.errors import (
    ModuleUnreachableError,
    TokenError,
    WorkerLostError,
    WorkerRefusedError,
)
from replug.token.frames import Verdict


class Starter:
    """Starts workers with the module at `path` (canonical) loaded, and keeps a spare one without it."""

    def __init__(self, path: str, deadlines: Deadlines) -> None:
        self.path = path
        self._deadlines = deadlines
        self._spare: Worker | None = None
        self._loading: set[Worker] = set()
        self._closed = False

    def close(self) -> None:
        """Start no more, and end what is starting."""
        self._closed = True
        for worker in self._loading:
            worker.kill()
        if self._spare is not None:
            self._spare.kill()
            self._spare = None

    def refuse_if_closed(self) -> None:
        """Raise TokenError after `close`."""
        if self._closed:
            raise TokenError(f"{self.path} was removed from the agent")

    async def loaded_worker(self) -> Worker:
        """A worker with the module.

        Raises ModuleUnreachableError when there can be no process, TokenError for what is no module,
        WorkerLostError and WorkerRefusedError when loading fails.
        """
        # The spare has done all that takes time but loading the module, which must see the world as it is
        # now. That a spare is lost says nothing about the module, so it is not a failure.
        spare, self._spare = self._spare, None
        if spare is not None and spare.alive:
            with contextlib.suppress(WorkerLostError):
                return await self._load(spare)
        try:
            worker = Worker(self._deadlines)
        except OSError as error:
            raise ModuleUnreachableError(
                f"no worker process can be started: {error.strerror}",
                "see the limits of the agent (ulimit -a)",
            ) from error
        return await self._load(worker)

    async def _load(self, worker: Worker) -> Worker:
        """`worker` with its module; the next spare starts only then, so as not to compete with it."""
        self._loading.add(worker)
        try:
            await worker.load(self.path)
            self.refuse_if_closed()
        except BaseException as error:
            worker.kill()
            if isinstance(error, WorkerRefusedError) and error.verdict is Verdict.NOT_A_MODULE:
                raise TokenError(f"{self.path} is not a PKCS#11 module: {error.detail}") from error
            raise
        finally:
            self._loading.remove(worker)
        if self._spare is None:
            with contextlib.suppress(OSError):
                self._spare = Worker(self._deadlines)
        return worker
