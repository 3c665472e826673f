"""How long an agent makes a client wait, without what a busy machine adds to that."""

from __future__ import annotations

import time
from pathlib import Path

from rigs.agent import LIST_REQUEST, Agent


class Waits:
    """Waits for an agent. On a busy machine it waits for a processor itself: the kernel says how long."""

    def __init__(self, agent: Agent) -> None:
        self._tasks = Path(f"/proc/{agent.pid}/task")
        self._loop = self._tasks / str(agent.pid)

    def begin(self) -> None:
        """A request is about to be sent."""
        self._delayed = self._delays()
        self._computed = _times(self._loop)[0]
        self._begun = time.monotonic()

    def end(self) -> float:
        """Seconds since `begin`; where most of them went to other programs, those the event loop computed."""
        wait = time.monotonic() - self._begun
        computed = _times(self._loop)[0] - self._computed
        return wait if self._delays() - self._delayed < wait / 4 else min(wait, computed)

    def _delays(self) -> float:
        """Seconds that its threads, and this one, have waited for a processor."""
        total = _times(Path("/proc/thread-self"))[1]
        for thread in self._tasks.iterdir():
            try:
                total += _times(thread)[1]
            except OSError:
                continue  # it has just ended
        return total


def _times(thread: Path) -> tuple[float, float]:
    """Seconds on a processor, and waiting for one (proc(5), schedstat)."""
    computed, waited, _ = (thread / "schedstat").read_text().split()
    return int(computed) / 1e9, int(waited) / 1e9


def longest_listing(agent: Agent, seconds: float) -> float:
    """The longest wait for a listing, among those of so many seconds; in seconds."""
    with agent.connect() as connection:
        connection.ask(LIST_REQUEST)  # it serves now
        waits, longest, end = Waits(agent), 0.0, time.monotonic() + seconds
        while time.monotonic() < end:
            waits.begin()
            answer = connection.ask(LIST_REQUEST)
            longest = max(longest, waits.end())
            assert answer[:1] == b"\x0c"
            time.sleep(0.0005)
    return longest
