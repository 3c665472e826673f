"""What only root may do: done at once by root, and by sudo without a password for everybody else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

AS_ROOT: tuple[str, ...] = () if os.geteuid() == 0 else ("sudo", "-n")
"""What a command begins with that has to be run as root."""


def may_be_root() -> bool:
    """Whether AS_ROOT works here."""
    return subprocess.run([*AS_ROOT, "true"], stderr=subprocess.DEVNULL).returncode == 0


def as_root(*command: str | Path, text: str = "") -> str:
    """Runs a command as root, with `text` on standard input; what it prints."""
    return subprocess.run(
        [*AS_ROOT, *command], input=text, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
