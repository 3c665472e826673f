"""Writes a file a moment after its contents have changed: many changes at once are written once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread

log = logging.getLogger(__name__)

_PAUSE = 0.2  # seconds


class WrittenLater:
    """One file, which a thread of `share` writes, and never two at a time."""

    def __init__(self, share: Share, contents: Callable[[], Callable[[], object]], failure: str) -> None:
        """`contents` returns what is to be called to write them; `failure` is for the log."""
        self._share = share
        self._contents = contents
        self._failure = failure
        self._planned: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def plan(self) -> None:
        """Have it written."""
        if self._planned is None:
            self._planned = asyncio.get_running_loop().call_later(_PAUSE, self._write)

    async def withdraw(self) -> None:
        """Have nothing written that was planned; what is being written is finished."""
        if self._planned is not None:
            self._planned.cancel()
            self._planned = None
        if self._writing is not None:
            await asyncio.wait([self._writing])

    def _write(self) -> None:
        self._planned = None
        if self._writing is not None and not self._writing.done():
            self.plan()
        else:
            self._writing = asyncio.create_task(self._in_thread(self._contents()))

    async def _in_thread(self, write: Callable[[], object]) -> None:
        try:
            await in_daemon_thread(self._share, write)
        except (OSError, TooManyThreadsError) as error:
            log.info(self._failure, extra={"why": str(error)})
