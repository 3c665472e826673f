"""The table, for a terminal and for docs/benchmarks.md alike."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

from bench.figures import Figure, Reach

_NONE = "n/a"


def by_keys(figures: Iterable[Figure], keys: Sequence[int]) -> str:
    """A row for each figure that was measured with several numbers of keys, and wants to reach something."""
    rows = [["ratio to OpenSSH's", *("1 key" if count == 1 else f"{count} keys" for count in keys)]]
    wanted: dict[str, dict[int, Figure]] = {}
    for figure in figures:
        if figure.keys is not None and figure.reaches:
            wanted.setdefault(figure.what, {})[figure.keys] = figure
    for what, found in wanted.items():
        cells = [
            ", ".join(map(partial(_short, found[n]), found[n].reaches)) if n in found else "" for n in keys
        ]
        rows.append([what, *cells])
    return _aligned(rows)


def table(figures: Iterable[Figure], others: Sequence[str] = ()) -> str:
    """A row for each figure: the medians of all, and the median of the runs' ratios to OpenSSH's."""
    names = ["replug", "workers", "openssh", *others]
    head = ["replug", "two workers", "OpenSSH", *others, "ratio", "of two workers", "reach"]
    figures = list(figures)
    many = any(figure.keys is not None for figure in figures)
    rows = [["", *(["keys"] if many else []), "unit", *head]]
    for figure in figures:
        row = [figure.what, *([str(figure.keys)] if many else []), figure.unit]
        row += [_number(figure.median(name)) for name in names]
        row += [_ratio(figure.ratio("replug")), _ratio(figure.ratio("workers"))]
        rows.append([*row, "; ".join(map(partial(_judged, figure), figure.reaches))])
    used = [n for n in range(len(rows[0])) if n == 0 or any(row[n] not in ("", _NONE) for row in rows[1:])]
    return _aligned([[row[n] for n in used] for row in rows])


def ceiling_table(figures: Iterable[Figure]) -> str:
    """What the load can do."""
    rows = [["clients", "unit", "trivial agent"]]
    rows += [[figure.what, figure.unit, _number(figure.median("trivial"))] for figure in figures]
    return _aligned(rows)


def machine() -> str:
    """What was measured, on what: processor, cores, versions and the date."""
    ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr.strip()
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    cores, kernel = len(os.sched_getaffinity(0)), platform.release().split("-")[0]
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {processor}, {cores} cores, Linux {kernel}; "
        f"replug {version('replug')}, Python {platform.python_version()}, {ssh.partition(',')[0]}, "
        f"SoftHSM {_package('softhsm2')}, OpenSC {_package('opensc-pkcs11')}"
    )


def _package(name: str) -> str:
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", name], capture_output=True, text=True, check=False
    )
    return done.stdout.partition("-")[0] or "?"


def _number(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _ratio(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f}x"


def _judged(figure: Figure, reach: Reach) -> str:
    of_workers = ", two workers" if reach.contestant == "workers" else ""
    if not figure.samples.get(reach.contestant):
        return f"{reach}{of_workers}"
    return f"{reach}{of_workers}: {'reached' if reach.met(figure) else '**missed**'}"


def _short(figure: Figure, reach: Reach) -> str:
    found = _ratio(figure.ratio(reach.contestant))
    if not figure.samples.get(reach.contestant):
        return f"({reach})"
    return f"{found if reach.met(figure) else f'**{found}**'} ({reach})"


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
