"""The tests of a file for one of several subjects, in a process that writes down what came of them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def outcomes_of(option: str, subject: str, tests: Path) -> tuple[bool, list[Any]]:
    """Whether all `tests` passed with `option subject`, and what they wrote to `--outcomes`.

    What pytest said is printed: its last line, or all of it if one failed.
    """
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", option, subject,
             "--outcomes", file.name, tests],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        written = Path(file.name).read_text()
    passed = done.returncode == 0
    last = done.stdout.rstrip().rpartition("\n")[2]
    print(f"{subject}: {last}" if passed else f"{subject}:\n{done.stdout}", flush=True)
    return passed, json.loads(written) if written else []
