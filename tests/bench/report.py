"""The table, for a terminal and for docs/benchmarks.md alike."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.figures import Figure, Reach

_NONE = "n/a"


def table(figures: Iterable[Figure], *, with_workers: bool) -> str:
    """A row for each figure: replug's and OpenSSH's medians, and the median of the runs' ratios."""
    rows = [["", "unit", "replug", "OpenSSH", "ratio", "reach"]]
    if with_workers:
        rows[0][4:4] = ["two workers", "ratio of these"]
    for figure in figures:
        row = [figure.what, figure.unit, _number(figure.median("replug")), _number(figure.median("openssh"))]
        if with_workers:
            row += [_number(figure.median("workers")), _ratio(figure.ratio("workers"))]
        rows.append([*row, _ratio(figure.ratio("replug")), _judged(figure, figure.reach)])
    if with_workers:
        rows[0][4:7] = ["two workers", "ratio of these", "ratio"]
    return _aligned(rows)


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


def _judged(figure: Figure, reach: Reach | None) -> str:
    if reach is None:
        return ""
    of_workers = ", two workers" if reach.contestant == "workers" else ""
    if not figure.samples.get(reach.contestant):
        return f"{reach}{of_workers}"
    return f"{reach}{of_workers}: {'reached' if reach.met(figure) else '**missed**'}"


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
