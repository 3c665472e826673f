"""Tells a slow worker from a hung one: its time counts from the last sign of life.

Workers report progress between calls of their module. One call may take half a minute, though, as libykcs11
reads a whole card in C_OpenSession. While it talks to the card, or to a service, it sleeps and wakes again,
which the kernel counts. A module that waits for what never comes does not wake, and one that computes
for ever does not sleep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from replug.token.worker.deadlines import Patience

_LOOK = 0.5  # seconds between looks at the process
_STOPPED = "T"
_SLEEPS = "voluntary_ctxt_switches"


class StoppedProcessError(Exception):
    """The process was stopped (SIGSTOP): it will not answer."""


class Vigil:
    """Watches the process `pid` while it is to answer a request."""

    def __init__(self, pid: int, give_up: Callable[[Exception], None]) -> None:
        """`give_up` is called with TimeoutError or StoppedProcessError when the process counts as hung."""
        self._loop = asyncio.get_running_loop()
        self._pid = pid
        self._give_up = give_up
        self._patience: Patience | None = None
        """With the request; None if there is none."""
        self._begin = self.last_sign = self._loop.time()
        """When the process last did something, on the loop's clock; whoever sees it says so here."""
        self._sleeps = ""
        self._stopped_at: float | None = None
        """When it was first seen to be stopped, and was at each look since."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, patience: Patience) -> None:
        """The process has got a request."""
        self._patience = patience
        self._begin = self.last_sign = self._loop.time()
        self._sleeps, self._stopped_at = "", None
        look = self._begin + min(_LOOK, patience.silence, patience.longest)
        if self._timer is None or look < self._timer.when():
            self._look_at(look)

    def end(self) -> None:
        """It has answered. The timer goes on: most of its looks find another request, or nothing to do."""
        self._patience = None

    def close(self) -> None:
        """There will be no more requests."""
        self._patience = None
        if self._timer is not None:
            self._timer.cancel()

    def _look_at(self, time: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(time, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._patience is None:
            return
        state, sleeps = _state_of(self._pid)
        now = self._loop.time()
        if state != _STOPPED:
            self._stopped_at = None
        elif self._stopped_at is None:
            self._stopped_at = now
        elif now - self._stopped_at > _LOOK / 2:
            self._give_up(StoppedProcessError())
            return
        if self._sleeps and sleeps != self._sleeps:
            self.last_sign = now
        self._sleeps = sleeps
        deadline = min(self.last_sign + self._patience.silence, self._begin + self._patience.longest)
        if now >= deadline:
            self._give_up(TimeoutError())
        else:
            self._look_at(min(now + _LOOK, deadline))


def is_stopped(pid: int) -> bool:
    """Whether the process is stopped now."""
    return _state_of(pid)[0] == _STOPPED


def _state_of(pid: int) -> tuple[str, str]:
    """The state of the process (proc(5)), and how often it has slept; empty where that is hidden."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "", ""
    fields = dict(line.partition(":\t")[::2] for line in text.splitlines())
    return fields.get("State", "")[:1], fields.get(_SLEEPS, "")
