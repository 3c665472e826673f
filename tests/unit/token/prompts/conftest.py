"""A terminal to be asked on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from doubles.screen import Screen


@pytest.fixture
def screen() -> Iterator[Screen]:
    screen = Screen()
    yield screen
    screen.close()
