"""What an agent takes of the machine, and whether it takes ever more."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from bench.processes import all_of, descriptors, memory, threads
from rigs.agent import Agent

_READINGS = 3
_APART = 0.2
"""Seconds between readings: the agent may not have noticed yet that the last client is gone."""
_WARMING = 0.25
"""The part of the time that counts as warming up."""
_TOLERANCE = 1.02
"""Of memory: allocators round, and Python's leaves gaps."""


@dataclass(frozen=True)
class Footprint:
    """Of an agent: its own memory in MiB, its descriptors and threads, and its processes."""

    memory: float
    descriptors: int
    threads: int
    processes: int

    @classmethod
    def of(cls, agent: Agent) -> Footprint:
        """When nothing is under way: the least of some readings."""
        readings = []
        for _ in range(_READINGS):
            pid = agent.pid
            readings.append(cls(memory([pid]).private, descriptors(pid), threads(pid), len(all_of(agent))))
            time.sleep(_APART)
        return cls(
            min(reading.memory for reading in readings),
            min(reading.descriptors for reading in readings),
            min(reading.threads for reading in readings),
            min(reading.processes for reading in readings),
        )


def grown(footprints: list[Footprint]) -> dict[str, bool]:
    """For each figure, in words, whether at the end it is no more than after warming up."""
    count = max(1, int(len(footprints) * _WARMING))
    after_warming, last = footprints[count - 1 : 2 * count], footprints[-count:]
    lines = {}
    for name, unit in (("memory", " MiB"), ("descriptors", ""), ("threads", ""), ("processes", "")):
        before = statistics.median(getattr(one, name) for one in after_warming)
        now = statistics.median(getattr(one, name) for one in last)
        allowed = before * _TOLERANCE if name == "memory" else before
        lines[f"no growth of the agent's {name}: {before:.4g} to {now:.4g}{unit}"] = now <= allowed
    return lines
