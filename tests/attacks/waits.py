"""How long an agent makes a client wait, without what a busy machine adds to that."""

from __future__ import annotations

import select
import statistics
import subprocess
import time
from pathlib import Path

from rigs.agent import LIST_REQUEST, Agent


class Waits:
    """Waits for an agent. On a busy machine it waits for a processor itself: the kernel says how long."""

    def __init__(self, agent: Agent) -> None:
        self._tasks = [Path(f"/proc/{pid}/task") for pid in agent.processes]
        self._loop = Path(f"/proc/{agent.pid}/task/{agent.pid}")

    def begin(self) -> None:
        """A request is about to be sent."""
        self._delayed = self._delays()
        self._computed = _times(self._loop)[0]
        self._begun = time.monotonic()

    def end(self) -> float:
        """Seconds since `begin`, without those in which its threads, or this one, waited for a processor.

        Not less than the event loop computed: threads may wait for a processor at the same time.
        """
        wait = time.monotonic() - self._begun
        computed = _times(self._loop)[0] - self._computed
        return min(wait, max(wait - (self._delays() - self._delayed), computed))

    def _delays(self) -> float:
        """Seconds that they have waited for a processor."""
        total = _times(Path("/proc/thread-self"))[1]
        for thread in [thread for tasks in self._tasks for thread in _listed(tasks)]:
            try:
                total += _times(thread)[1]
            except OSError:
                continue  # it has just ended
        return total


def _listed(tasks: Path) -> list[Path]:
    try:
        return list(tasks.iterdir())
    except OSError:
        return []  # the process has just ended


def _times(thread: Path) -> tuple[float, float]:
    """Seconds on a processor, and waiting for one (proc(5), schedstat)."""
    computed, waited, _ = (thread / "schedstat").read_text().split()
    return int(computed) / 1e9, int(waited) / 1e9


def longest_listing(agent: Agent, *, until_line_of: subprocess.Popen[str]) -> float:
    """The longest wait for a listing, in seconds, until the process prints a line."""
    output = until_line_of.stdout
    assert output
    with agent.connect() as connection:
        connection.ask(LIST_REQUEST)  # it serves now
        waits, longest, end = Waits(agent), 0.0, time.monotonic() + 0.3
        while time.monotonic() < end or not select.select([output], [], [], 0.0005)[0]:
            waits.begin()
            answer = connection.ask(LIST_REQUEST)
            longest = max(longest, waits.end())
            assert answer[:1] == b"\x0c"
        assert output.readline()
    return longest


def usual_signature(agent: Agent, request: bytes) -> float:
    """How long a signature usually takes; in seconds."""
    times = []
    with agent.connect() as connection:
        assert connection.ask(request)[:1] == b"\x0e", agent.log
        waits = Waits(agent)
        for _ in range(30):
            waits.begin()
            assert connection.ask(request)[:1] == b"\x0e", agent.log
            times.append(waits.end())
    return statistics.median(times)
