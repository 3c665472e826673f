"""`make soak` runs, for some seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.footprint import Footprint, grown
from bench.programs import build
from bench.soak import Soak
from rigs.pcscd import home_with_pcscd

SEED = 20260101


def test_some_seconds_of_it(tmp_path: Path) -> None:
    with home_with_pcscd() as (home, pcscd):
        soak = Soak(home, pcscd, build(tmp_path), SEED)
        try:
            soak.run(12, slice_seconds=1)
            verdict = soak.verdict()
        finally:
            soak.agent.stop()

    assert soak.tally.failures == [], "\n\n".join(soak.tally.failures)
    assert soak.tally.disturbances > 1
    # Growth and lag are for the long run on a machine that does nothing else.
    broken = [line for line, holds in verdict.items() if not holds]
    assert [line for line in broken if "growth" not in line and "p99.9" not in line] == []
    assert soak.lag.replies > 100


@pytest.mark.parametrize(
    ("figure", "more"), [("memory", 31.0), ("descriptors", 21), ("threads", 4), ("processes", 6)]
)
def test_growth_is_seen(figure: str, more: float) -> None:
    usual = {"memory": 30.0, "descriptors": 20, "threads": 3, "processes": 5}
    calm = [Footprint(**usual)] * 8  # type: ignore[arg-type]
    growing = [*calm, *[Footprint(**usual | {figure: more})] * 8]  # type: ignore[arg-type]

    assert all(grown(calm).values())
    assert [line for line, holds in grown(growing).items() if not holds] == [
        f"no growth of the agent's {figure}: {usual[figure]:.4g} to {more:.4g}"
        + (" MiB" if figure == "memory" else "")
    ]
