"""Prints the part of requirements.lock that replug needs to run: `run_time_lock.py requirements.lock`.

It is run by a Python in whose environment everything in the lock is installed, as in `make`'s .venv.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def needed(requirements: list[str]) -> set[str]:
    """The names of the packages that meet `requirements`, and of all that those need here."""
    found: set[str] = set()
    while requirements:
        requirement = Requirement(requirements.pop())
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        requirements += requires(name) or []
    return found


def locked(lock: str) -> dict[str, str]:
    """The entries of a lock file, with their hashes, by name."""
    entries = re.findall(r"^[\w.-]+==.*(?:\n .*)*\n", lock, re.MULTILINE)
    return {canonicalize_name(entry.partition("==")[0]): entry for entry in entries}


if __name__ == "__main__":
    entries = locked(Path(sys.argv[1]).read_text())
    wanted = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    sys.stdout.writelines(entries[name] for name in sorted(needed(wanted)))
