"""An ordinary user with a service manager, for whom replug is to be set up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest
from rigs.home import Home
from rigs.user_manager import NotStartedError, UserManager

LogIn = Callable[..., UserManager]


@pytest.fixture
def logged_in(home: Home) -> Iterator[LogIn]:
    """Logs a user in whose home is `home`, when everything is in it that is to be there."""
    with ExitStack() as sessions:

        def log_in(within: Sequence[str] = (), *, journal: bool = False) -> UserManager:
            session = UserManager(home, within=within, journal=journal)
            sessions.callback(session.log_out)
            try:
                session.log_in()
            except NotStartedError as error:
                pytest.skip(str(error))
            return session

        yield log_in


@pytest.fixture
def session(logged_in: LogIn) -> UserManager:
    """A user who has logged in."""
    return logged_in()
