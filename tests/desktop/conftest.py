"""Fixtures for what a desktop and a machine tell and are told over D-Bus."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rigs.home import Home
from rigs.message_bus import MessageBus


@pytest.fixture
def bus(home: Home) -> Iterator[MessageBus]:
    """A message bus without services."""
    bus = MessageBus(home.folder)
    yield bus
    bus.stop()
