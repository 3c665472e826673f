"""A module of p11-kit that is remote, whose far end means ill: it delays nobody, and takes little memory."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from rigs.agent import LIST_REQUEST, Agent
from rigs.home import Home
from rigs.registered import Registered
from rigs.terminal import eventually

Far = Callable[[str], Agent]


@pytest.fixture
def far(home: Home, request: pytest.FixtureRequest) -> Iterator[Far]:
    """Starts an agent whose only module has a far end with this habit; when it was reached, too."""
    (home.folder / ".config" / "replug" / "config.toml").unlink()
    registered, path = Registered(home), home.folder / "far.sock"
    registered.register("far", f"remote: unix:path={path}")
    started: list[subprocess.Popen[str]] = []
    agents: list[Agent] = []

    def start(habit: str) -> Agent:
        command = [sys.executable, "-I", Path(__file__).with_name("remote_module.py"), path, habit]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        output = started[0].stdout
        assert output
        assert output.readline() == "listening\n"
        agents.append(Agent(registered.program(request.config.getoption("agent")), home))
        assert output.readline() == "reached\n"
        return agents[0]

    yield start
    for agent in agents:
        agent.stop()
    for process in started:
        process.kill()
        process.communicate()


def test_it_does_not_delay_listings(far: Far) -> None:
    """After a start they wait some seconds for all tokens; longer only while a card is visibly being read."""
    begun = time.monotonic()
    agent = far("drips")
    with agent.connect() as connection:
        assert connection.ask(LIST_REQUEST)[:1] == b"\x0c"
        assert time.monotonic() - begun < 15
        begun = time.monotonic()
        assert connection.ask(LIST_REQUEST)[:1] == b"\x0c"
        assert time.monotonic() - begun < 1


def test_its_worker_takes_little_memory(far: Far) -> None:
    agent = far("pours")
    largest = 0

    def failed() -> bool:
        nonlocal largest
        for pid in agent.children():
            with suppress(OSError):
                largest = max(largest, int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096)
        return "slot scan failed" in agent.log

    eventually(failed, "the agent has given it up", within=60)
    assert largest < 300_000_000, largest
