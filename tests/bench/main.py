"""`make bench`: replug beside OpenSSH's agent, and the table in docs/benchmarks.md.

Both run at the same time, on the same token, and are asked in turn: A B A B. Each figure is the median of the
runs, each ratio the median of the ratios of neighbouring runs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import lifecycle, loads, programs, report
from bench.contestants import FULL_TOKEN, on, softhsm
from bench.figures import Figure
from rigs.pcscd import home_with_pcscd

_MARK = "<!-- what follows is written by `make bench` -->\n"


@dataclass(frozen=True)
class Effort:
    """How long and how often to measure."""

    runs: int
    seconds: float
    """Of one run of one load."""
    touch: float
    signatures: tuple[int, int]
    """After how many to look at memory."""
    insertions: int
    calm: float
    """Seconds to leave an agent alone before its memory is looked at."""


FULL = Effort(runs=5, seconds=2.0, touch=2.0, signatures=(1_000, 10_000), insertions=5, calm=1.5)
QUICK = Effort(runs=1, seconds=0.3, touch=2.0, signatures=(1_000, 10_000), insertions=1, calm=1.5)
TINY = Effort(runs=1, seconds=0.02, touch=0.4, signatures=(20, 60), insertions=1, calm=0.2)
EFFORTS = {"full": FULL, "quick": QUICK, "tiny": TINY}


def run(effort: Effort, two_workers: str | None, say: Callable[[Figure], None]) -> str:
    """Measures everything, telling each figure as it comes; the text for the document."""
    found: list[Figure] = []

    def take(figures: Iterable[Figure]) -> list[Figure]:
        taken = []
        for figure in figures:
            say(figure)
            taken.append(figure)
        return taken

    with tempfile.TemporaryDirectory(prefix="rp-") as folder:
        compiled = programs.build(Path(folder))
        with softhsm() as token:
            with on(token, two_workers) as contestants:
                replug = contestants["replug"]
                ceiling = take(loads.ceiling(compiled, token, replug, effort.runs, effort.seconds))
                found += take(loads.under_load(compiled, token, contestants, effort.runs, effort.seconds))
            found += take(lifecycle.starting(token.home, effort.runs))
            found += take(lifecycle.memories(compiled, token, effort.runs, effort.signatures, effort.calm))
        with softhsm(FULL_TOKEN) as token, on(token, two_workers) as contestants:
            found += take(loads.with_many_keys(compiled, token, contestants, effort.runs, effort.seconds))
        with home_with_pcscd() as (home, pcscd):
            found += take(lifecycle.waiting_for_touch(compiled, home, pcscd, effort.runs, effort.touch))
        with home_with_pcscd() as (home, pcscd):
            found += take(lifecycle.insertion(home, pcscd, effort.insertions))
    wanted = [figure for figure in found if figure.reach is not None]
    with_workers = two_workers is not None
    return "\n\n".join(
        [
            f"{report.machine()}. {effort.runs} runs.",
            "## What we want to reach",
            report.table(wanted, with_workers=with_workers),
            "## Everything",
            report.table(found, with_workers=with_workers),
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
    arguments.add_argument("--two-workers", metavar="TOML", help="a configuration with two workers")
    chosen = arguments.parse_args()

    def say(figure: Figure) -> None:
        values = ", ".join(f"{name} {figure.median(name):.4g}" for name in figure.samples)
        print(f"{figure.what}: {values} {figure.unit}", file=sys.stderr, flush=True)

    text = run(EFFORTS[chosen.effort], chosen.two_workers, say)
    print(text)
    if chosen.document is not None:
        write(text, chosen.document)


if __name__ == "__main__":
    main()
