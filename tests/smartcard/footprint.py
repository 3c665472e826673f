"""What an agent takes of the machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rigs.agent import Agent


@dataclass(frozen=True)
class Footprint:
    """What the agent takes: memory in KiB, open files, processes."""

    memory: int
    files: int
    processes: int

    @classmethod
    def of(cls, agent: Agent) -> Footprint:
        """Right now. Open files are 0 unless we are root: the agent lets nobody else look."""
        process = Path(f"/proc/{agent.pid}")
        fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        try:
            files = len(os.listdir(process / "fd"))
        except PermissionError:
            files = 0
        return cls(int(fields["VmRSS"].split()[0]), files, len(agent.children()))
