"""A program that makes a terminal which hangs, and runs others on it."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SOURCE = Path(__file__).parents[1] / "attacks" / "hung_terminal.c"


def build(folder: Path) -> Path:
    """Compiles the program into `folder` and returns its path; what it says and does is in its source."""
    program = folder / "hung_terminal"
    subprocess.run(
        ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-o", program, _SOURCE],
        check=True,
    )
    return program
