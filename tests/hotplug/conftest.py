"""Fixtures for hotplug: an agent where udev seems to run, and a module that counts the looks at its slots."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rigs.agent import Agent, StartAgent
from rigs.faulty import Faulty
from rigs.home import Home
from rigs.udev import Udev


@pytest.fixture
def udev_runs() -> bool:
    """Whether udev seems to run; to be parametrized."""
    return True


@pytest.fixture
def udev(request: pytest.FixtureRequest, home: Home, udev_runs: bool) -> Iterator[Udev]:
    """Namespaces for the agent under test."""
    udev = Udev(home, request.config.getoption("agent"), running=udev_runs)
    yield udev
    udev.close()


@pytest.fixture
def agent(udev: Udev, start_agent: StartAgent, faulty: Faulty) -> Agent:
    """An agent without keys in those namespaces."""
    return start_agent("-P", f"{faulty.home.folder}/*", program=udev.program, env=faulty.env)
