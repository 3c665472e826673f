"""A terminal to be asked on, and what forks the processes that use it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from doubles.fork_servers import RunningForkServer, running_fork_server
from doubles.screen import Screen


@pytest.fixture(scope="session")
def fork_server() -> Iterator[RunningForkServer]:
    """One for all tests: it has nothing to remember."""
    with running_fork_server() as server:
        yield server


@pytest.fixture
def screen(fork_server: RunningForkServer) -> Iterator[Screen]:
    screen = Screen(fork_server)
    yield screen
    screen.close()
