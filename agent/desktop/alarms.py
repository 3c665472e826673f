"""Calls for later that are mostly unset before: one timer serves all, and is left alone when one is unset."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarms:
    """Calls, each at its time."""

    def __init__(self) -> None:
        self._due: dict[Callable[[], None], float] = {}
        """By call, on the loop's clock."""
        self._timer: asyncio.TimerHandle | None = None
        """For the next of them, or for one that was unset."""

    def set(self, call: Callable[[], None], seconds: float) -> None:
        """Call it, once, after so many seconds."""
        due = self._due[call] = asyncio.get_running_loop().time() + seconds
        if self._timer is None or due < self._timer.when():
            self._ring_at(due)

    def unset(self, call: Callable[[], None]) -> None:
        """Do not call it, if it was not called yet."""
        self._due.pop(call, None)

    def _ring_at(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(due, self._ring)

    def _ring(self) -> None:
        assert self._timer is not None
        now, self._timer = self._timer.when(), None
        for call in [call for call, due in self._due.items() if due <= now]:
            del self._due[call]
            call()
        if self._due:
            self._ring_at(min(self._due.values()))
