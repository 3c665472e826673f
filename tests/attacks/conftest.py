"""An ordinary user with a service manager, and a program of that user's which spies on the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rigs import attacker as attackers
from rigs.attacker import Attacker
from rigs.home import Home
from rigs.user_manager import NotStartedError, UserManager


@pytest.fixture(scope="session")
def attacker_built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, compiled."""
    return attackers.build(tmp_path_factory.mktemp("attacker"))


@pytest.fixture
def log_in(home: Home) -> Iterator[Callable[[], UserManager]]:
    """Logs the user in, when everything is in `home` that is to be there."""
    session = UserManager(home)

    def log_in() -> UserManager:
        try:
            session.log_in()
        except NotStartedError as error:
            pytest.skip(str(error))
        return session

    yield log_in
    session.log_out()


@pytest.fixture
def attack(home: Home, attacker_built: Path) -> Callable[[UserManager], Attacker]:
    """Starts the attacker in a session."""
    return lambda session: Attacker(session, home.folder, attacker_built)
