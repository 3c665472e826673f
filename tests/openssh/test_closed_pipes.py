"""`replug` as a program among others: its output goes into pipes that end early."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rigs.agent import Agent


@pytest.mark.parametrize(
    "given",
    ["", "help", "help logs", "--version", "status", "status --json", "forget", "refresh", "doctor", "reload",
     "doctor --json", "explain", "config check", "config show", "config example", "setup --dry-run"],
)  # fmt: skip
def test_a_closed_pipe_ends_it_quietly(given: str, agent: Agent) -> None:
    """As `replug status | head -0`."""
    reading, writing = os.pipe()
    os.close(reading)
    replug = Path(sys.executable).with_name("replug")
    done = subprocess.run(
        [replug, *given.split()], env=agent.env, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert done.stderr == ""
