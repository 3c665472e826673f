"""What is installed on this machine, in words."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path


def versions(packages: Iterable[str]) -> list[str]:
    """Each of these Debian packages with its version, by name."""
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *sorted(set(packages))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def system() -> str:
    """The distribution's name."""
    lines = Path("/etc/os-release").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)["PRETTY_NAME"].strip('"')
