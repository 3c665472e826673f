"""A short run of `make torture`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rigs.home import Home
from rigs.pcscd import Pcscd
from smartcard.reference import reference
from smartcard.torture import Torture

SEED = 20260101
COUNT = 20


@pytest.fixture
def torture(request: pytest.FixtureRequest, home: Home, pcscd: Pcscd, module: Path) -> Iterator[Torture]:
    """A run that is about to begin."""
    with reference(module, latency=0.0) as tool:
        torture = Torture(home, pcscd, request.config.getoption("agent"), module, SEED, tool)
        yield torture
        torture.agent.stop()


def test_whatever_happens_the_next_request_signs(torture: Torture) -> None:
    torture.run(COUNT)

    assert torture.failures == [], "\n\n".join(torture.failures)
