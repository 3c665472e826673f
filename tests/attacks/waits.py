"""How long an agent makes a client wait, without what a busy machine adds to that."""

from __future__ import annotations

import select
import statistics
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from rigs.agent import LIST_REQUEST, Agent


class Waits:
    """Waits for an agent. On a busy machine it waits for a processor itself: the kernel says how long."""

    def __init__(self, agent: Agent) -> None:
        self._processes = agent.processes

    def begin(self) -> None:
        """A request is about to be sent."""
        self._delayed = self._delays()
        self._computed = self._cpu_time()
        self._begun = time.monotonic()

    def end(self) -> float:
        """Seconds since `begin`; if other programs had a part of them, those that the agent computed."""
        wait = time.monotonic() - self._begun
        computed = self._cpu_time() - self._computed
        delayed = self._delays()
        others = sum(seconds - self._delayed.get(thread, 0.0) for thread, seconds in delayed.items())
        # How long a thread that has ended meanwhile waited for a processor is not known.
        undisturbed = others < wait / 4 and delayed.keys() >= self._delayed.keys()
        return wait if undisturbed else min(wait, computed)

    def _delays(self) -> dict[Path, float]:
        """Seconds that each of its threads, and this one, have waited for a processor (schedstat)."""
        threads = [Path("/proc/thread-self").resolve()]
        for pid in self._processes:
            with suppress(OSError):  # it has just ended
                threads += Path(f"/proc/{pid}/task").iterdir()
        delays = {}
        for thread in threads:
            with suppress(OSError):
                delays[thread] = int((thread / "schedstat").read_text().split()[1]) / 1e9
        return delays

    def _cpu_time(self) -> float:
        """Seconds that the agent's processes have computed, threads that have ended included."""
        total = 0.0
        for pid in self._processes:
            with suppress(OSError):
                total += time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3)
        return total


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
