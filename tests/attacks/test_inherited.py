"""What the program that starts the agent leaves to it, besides the environment, does it no harm."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doubles.private_keys import ed25519_key, message
from rigs.agent import Agent, descendants, frame, string
from rigs.home import Home
from rigs.terminal import eventually

SUCCESS = b"\x06"
StartAfter = Callable[[str], Agent]


@pytest.fixture
def start_after(home: Home, request: pytest.FixtureRequest) -> Iterator[StartAfter]:
    """Starts an agent in a process in which these Python statements were executed."""
    agents: list[Agent] = []
    agent = str(request.config.getoption("agent"))

    def start_after(statements: str) -> Agent:
        lines = [
            f"#!{sys.executable} -I",
            "import os, resource, signal, sys",
            statements,
            f"os.execv({agent!r}, [{agent!r}, *sys.argv[1:]])",
        ]
        agents.append(Agent(home.write("starter", "\n".join(lines), 0o755), home))
        return agents[-1]

    yield start_after
    for one in agents:
        one.stop()


def test_blocked_signals(start_after: StartAfter) -> None:
    """What has ended is reaped, and the agent ends when it is to."""
    agent = start_after("signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())")
    key = ed25519_key()
    processes = set[int]()
    with agent.connect() as connection:
        for _ in range(3):
            assert connection.ask(frame(bytes(message(key)))) == SUCCESS
            processes |= {*descendants(agent.process.pid)} - {agent.pid}
            assert connection.ask(frame(b"\x12" + string(key.blob))) == SUCCESS
    assert len(processes) >= 3
    eventually(
        lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes if pid not in agent.children()),
        "the processes' end",
    )
    agent.process.send_signal(signal.SIGTERM)
    assert agent.process.wait(timeout=10) == 2


def test_descriptors_beyond_the_limit(start_after: StartAfter) -> None:
    """The agent would keep open what its starter waits for the end of."""
    agent = start_after(
        "os.dup2(os.pipe()[1], 90)\n"
        "os.set_inheritable(90, True)\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))"
    )
    open_now = {name for pid in agent.processes for name in os.listdir(f"/proc/{pid}/fd")}
    assert "90" not in open_now
