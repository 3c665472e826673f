"""`make bench`: replug beside OpenSSH's agent, and the table in docs/benchmarks.md.

Both run at the same time, on the same token, and are asked in turn: A B A B. Each figure is the median of the
runs, each ratio the median of the ratios of neighbouring runs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import chart, lifecycle, loads, programs, report
from bench.contestants import on, softhsm
from bench.figures import Figure
from bench.loads import ALL_KEYS, KEYS
from rigs.pcscd import home_with_pcscd

_MARK = "<!-- what follows is written by `make bench` -->\n"


@dataclass(frozen=True)
class Effort:
    """How long and how often to measure."""

    runs: int
    seconds: float
    """Of one run of one load."""
    keys: tuple[int, ...]
    """How many there are on the token."""
    touch: float
    signatures: tuple[int, int]
    """After how many to look at memory."""
    insertions: int
    calm: float
    """Seconds to leave an agent alone before its memory is looked at."""


FULL = Effort(7, 0.5, ALL_KEYS, touch=2.0, signatures=(1_000, 10_000), insertions=5, calm=1.5)
QUICK = Effort(1, 0.2, KEYS, touch=2.0, signatures=(1_000, 10_000), insertions=1, calm=1.5)
TINY = Effort(1, 0.02, KEYS[:2], touch=0.4, signatures=(20, 60), insertions=1, calm=0.2)
EFFORTS = {"full": FULL, "quick": QUICK, "tiny": TINY}


def measured(
    effort: Effort, two_workers: str | None, others: Sequence[Path], say: Callable[[Figure], None]
) -> tuple[list[Figure], list[Figure]]:
    """All figures, and those of an agent that does nothing; each is told as it comes."""

    def told(figures: Iterable[Figure]) -> list[Figure]:
        taken = []
        for figure in figures:
            say(figure)
            taken.append(figure)
        return taken

    runs, seconds = effort.runs, effort.seconds
    with tempfile.TemporaryDirectory(prefix="rp-") as folder:
        compiled = programs.build(Path(folder))
        found = told(loads.under_load(compiled, effort.keys, two_workers, others, runs, seconds))
        with softhsm() as token:
            with on(token) as contestants:
                ceiling = told(loads.ceiling(compiled, token, contestants["replug"], runs, seconds))
            found += told(lifecycle.starting(token.home, runs))
            found += told(lifecycle.memories(compiled, token, runs, effort.signatures, effort.calm))
        with home_with_pcscd() as (home, pcscd):
            found += told(lifecycle.waiting_for_touch(compiled, home, pcscd, runs, effort.touch))
        with home_with_pcscd() as (home, pcscd):
            found += told(lifecycle.insertion(home, pcscd, effort.insertions))
    return found, ceiling


def as_text(effort: Effort, found: list[Figure], ceiling: list[Figure], others: Sequence[Path] = ()) -> str:
    """What the document says of them."""
    with_keys = [figure for figure in found if figure.keys is not None]
    without = [figure for figure in found if figure.keys is None]
    return "\n\n".join(
        [
            f"{report.machine()}. Medians of {effort.runs} slices of {effort.seconds:g} s.",
            "## What we want to reach",
            "A second figure is that of two workers. Bold is what was missed.",
            report.by_keys(with_keys, KEYS),
            report.table(figure for figure in without if figure.reaches),
            "## Everything",
            report.table(with_keys, [str(path) for path in others]),
            report.table(without),
            "## What the load can do",
            report.ceiling_table(ceiling),
        ]
    )


def write(text: str, document: Path) -> None:
    """Puts `text` into the document, below what people wrote there."""
    above = document.read_text().partition(_MARK)[0]
    document.write_text(f"{above}{_MARK}\n{text}\n")


def main() -> None:
    """Measures, prints and writes."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--effort", choices=EFFORTS, default="full")
    arguments.add_argument("--document", type=Path, default=None, help="written to, else only printed")
    arguments.add_argument("--chart", type=Path, default=None, help="an image of it, as SVG")
    arguments.add_argument("--two-workers", metavar="TOML", help="a configuration with two workers")
    arguments.add_argument("--agent", type=Path, nargs="*", default=[], help="other agents, by their paths")
    chosen = arguments.parse_args()

    def say(figure: Figure) -> None:
        values = ", ".join(f"{name} {figure.median(name):.4g}" for name in figure.samples)
        keys = "" if figure.keys is None else f"{figure.keys} keys, "
        print(f"{keys}{figure.what}: {values} {figure.unit}", file=sys.stderr, flush=True)

    effort = EFFORTS[chosen.effort]
    found, ceiling = measured(effort, chosen.two_workers, chosen.agent, say)
    text = as_text(effort, found, ceiling, chosen.agent)
    print(text)
    if chosen.document is not None:
        write(text, chosen.document)
    if chosen.chart is not None:
        chosen.chart.write_text(chart.drawn(found))


if __name__ == "__main__":
    main()
