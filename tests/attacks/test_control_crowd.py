"""Crowds at the control socket: `replug` is answered all the same, and the agent serves its clients."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from attacks.waits import Waits
from rigs.agent import LIST_REQUEST, Agent

REPLUG = Path(sys.executable).with_name("replug")
_CROWD = 10
_MANY = 40
"""More than there are places."""


def test_a_crowd_of_processes_that_connect_keeps_nobody_out(agent: Agent) -> None:
    command = [sys.executable, "-I", Path(__file__).with_name("control_crowd.py"), agent.control]
    crowd = [subprocess.Popen(command) for _ in range(_CROWD)]
    try:
        for _ in range(3):
            done = agent.run(REPLUG, "status")
            assert done.status == 0, done.err
        with agent.connect() as connection:
            waits, times = Waits(agent), []
            for _ in range(100):
                waits.begin()
                assert connection.ask(LIST_REQUEST)[:1] == b"\x0c"
                times.append(waits.end())
        assert statistics.median(times) < 0.02, times
    finally:
        for process in crowd:
            process.kill()
            process.wait()


@pytest.mark.parametrize("command", ["status", "refresh", "reload"])
def test_processes_that_ask_again_and_again_keep_nobody_out(agent: Agent, command: str) -> None:
    argv = [sys.executable, "-I", Path(__file__).with_name("control_crowd.py"), agent.control, command]
    crowd = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(_MANY)]
    try:
        for process in crowd:
            assert process.stdout
            assert process.stdout.read(1)  # it has been connected
        for asked in ("status", "reload", "status"):
            done = agent.run(REPLUG, asked)
            assert done.status == 0, done.err
    finally:
        for process in crowd:
            process.kill()
            process.communicate()
