"""A worker that can be replaced: the process is disposable, its place in the pool is not."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from replug.token.identity import TokenId
from replug.token.worker.client import WorkerClient
from replug.token.worker.frames import Header
from replug.token.worker.starter import Starter

_GRACE = 0.4  # seconds after a removal, in which most modules report it
_LONGER_GRACE = 1.0  # seconds, where it is not known to concern what the worker does


class RestartingWorker:
    """One worker of a module. The caller that took it from the pool may use it, and replace its process."""

    def __init__(self, starter: Starter) -> None:
        self.busy = False
        self.restart_pending = False
        """Whether the process is to be ended when the worker is given back."""
        self.task: asyncio.Task[Any] | None = None
        """What uses it now; kept here, as the event loop has only weak references to tasks."""
        self.is_fresh = False
        """Whether the last call of `live` had to start a process."""
        self.uses_pcscd = False
        """Whether its last process reached tokens by way of pcscd."""
        self._starter = starter
        self._worker: WorkerClient | None = None
        self._ending: WorkerClient | None = None
        """The one before, whose sessions may be in the way of the next."""

    async def live(self, *, patient: bool = False, spare: bool = True) -> WorkerClient:
        """The process with the module loaded, started if there is none. As `Starter.loaded_worker`."""
        self.is_fresh = False
        if self._worker is None or not self._worker.alive:
            self.is_fresh, self._worker, self.restart_pending = True, None, False
            self._worker = await self._loaded(patient=patient, spare=spare)
            if self.restart_pending:
                # A card was removed while it loaded: it would read the next one, and end then.
                self.discard()
                self._worker = await self._loaded(patient=patient, spare=spare)
            self.uses_pcscd = self._worker.uses_pcscd
        return self._worker

    async def _loaded(self, *, patient: bool, spare: bool) -> WorkerClient:
        if self._ending is not None:
            await self._ending.wait_for_end()
            self._ending = None
        return await self._starter.loaded_worker(patient=patient, spare=spare)

    @property
    def logged_in(self) -> set[TokenId]:
        """The tokens that the process is logged in to, or that need no login."""
        return set() if self._worker is None else self._worker.ready

    @property
    def opened(self) -> set[TokenId]:
        """The tokens that the process has a session on, and has read."""
        return self._worker.opened if self._worker is not None and self._worker.alive else set()

    @property
    def last_sign(self) -> float | None:
        """When its process last showed a sign of life, on the loop's clock; None if there is none."""
        return None if self._worker is None else self._worker.last_sign

    def removed(self, tokens: Collection[Header]) -> None:
        """Soon end what is under way with one of `tokens`, given by their fields, or with no token."""
        if self._worker is not None and self._worker.asked:
            used = self._worker.token_in_use
            if used is None or used in tokens:
                self._worker.end_unless_answered(_GRACE if used else _LONGER_GRACE)

    def restart_if_useless(self) -> None:
        """End the process if it is idle and no token is logged in there."""
        if not self.busy and self._worker is not None and not self._worker.ready:
            self.discard()

    def discard(self) -> None:
        """End the process in an orderly way: it logs out, closes its sessions and finalises the module."""
        self.restart_pending = False
        if self._worker is not None:
            self._worker.end()
            self._ending, self._worker = self._worker, None

    def kill(self) -> None:
        """End the process now, because something went wrong with it."""
        self.restart_pending = False
        if self._worker is not None:
            self._worker.kill()
            self._worker = None
