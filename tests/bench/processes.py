"""What processes use, as the kernel counts it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

from rigs.agent import Agent
from rigs.root import as_root

_MEBIBYTE = 1024.0


@dataclass(frozen=True)
class Memory:
    """Of some processes together, in MiB."""

    resident: float
    """The sum of what each has mapped (RSS): shared pages count once for each."""
    proportional: float
    """The sum of their shares (PSS): a page that two processes have counts half for each."""
    private: float
    """What nobody else has mapped."""


def all_of(agent: Agent) -> list[int]:
    """The agent's processes."""
    return agent.processes


def cpu_seconds(pids: Iterable[int]) -> float:
    """The CPU time that these processes have used, their ended threads included."""
    return sum(time.clock_gettime(_cpu_clock(pid)) for pid in pids)


def memory(pids: Iterable[int]) -> Memory:
    """What these processes hold now. Only root may ask it of an agent, which lets nobody look at it."""
    totals = {"Rss": 0, "Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    for pid in pids:
        for line in as_root("cat", f"/proc/{pid}/smaps_rollup").splitlines()[1:]:
            name, value = line.split(":")
            if name in totals:
                totals[name] += int(value.split()[0])
    private = totals["Private_Clean"] + totals["Private_Dirty"]
    return Memory(totals["Rss"] / _MEBIBYTE, totals["Pss"] / _MEBIBYTE, private / _MEBIBYTE)


def descriptors(pid: int) -> int:
    """How many files it has open; for root only, as `memory`."""
    return len(as_root("ls", f"/proc/{pid}/fd").splitlines())


def threads(pid: int) -> int:
    """How many threads it has."""
    return len(os.listdir(f"/proc/{pid}/task"))


def _cpu_clock(pid: int) -> int:
    # clock_getcpuclockid(3), which Python does not have for other processes.
    return ~pid << 3 | 2
