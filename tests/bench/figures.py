"""Figures of two contestants, run by run, and their ratio."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Samples = dict[str, list[float]]
"""By contestant, a figure for each run."""


@dataclass(frozen=True)
class Reach:
    """What a figure is to reach: at least or at most `bound`, as a ratio to OpenSSH's or `absolute`."""

    bound: float
    least: bool = False
    absolute: bool = False
    contestant: str = "replug"

    def __str__(self) -> str:
        sign = "≥" if self.least else "≤"
        return f"{sign} {self.bound:g}" + ("" if self.absolute else "x")

    def met(self, figure: Figure) -> bool:
        """Whether `figure` reaches it."""
        value = figure.median(self.contestant) if self.absolute else figure.ratio(self.contestant)
        assert value is not None
        return value >= self.bound if self.least else value <= self.bound


@dataclass
class Figure:
    """One thing that was measured, of each contestant that can do it."""

    what: str
    unit: str
    samples: Samples = field(default_factory=dict)
    reaches: tuple[Reach, ...] = ()
    keys: int | None = None
    """How many are on the token, where that was varied."""

    def median(self, contestant: str) -> float | None:
        """In `unit`; None if this contestant cannot do it."""
        samples = self.samples.get(contestant)
        return statistics.median(samples) if samples else None

    def ratio(self, contestant: str) -> float | None:
        """To OpenSSH's figure of the same run: the median of the runs' ratios."""
        ours, theirs = self.samples.get(contestant), self.samples.get("openssh")
        if not ours or not theirs or self.unit == "%":
            return None
        return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def interleaved(
    runs: int, measures: Mapping[str, Callable[[], dict[str, float]]]
) -> dict[str, dict[str, list[float]]]:
    """Runs the contestants' measures in turn, A B A B; the values by name and contestant."""
    values: dict[str, dict[str, list[float]]] = {}
    for _ in range(runs):
        for contestant, measure in measures.items():
            for name, value in measure().items():
                values.setdefault(name, {}).setdefault(contestant, []).append(value)
    return values
