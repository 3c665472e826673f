"""`replug doctor` as the user runs it, and what it found."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from rigs.home import Home

REPLUG = Path(sys.executable).with_name("replug")


@dataclass(frozen=True)
class Found:
    """One finding."""

    outcome: str
    reason: str
    fix: str


class Diagnosis:
    """All findings of one run, by the name of the check."""

    def __init__(
        self, home: Home, *modules: str | Path, env: dict[str, str] | None = None, program: Path = REPLUG
    ) -> None:
        done = home.run(program, "doctor", "--json", *modules, env=env)
        assert done.err == "", done
        answer = json.loads(done.out)
        assert answer["version"] == 1
        self._findings: dict[str, list[Found]] = {}
        for found in answer["findings"]:
            assert bool(found["fix"]) or found["outcome"] != "fail", found
            self._findings.setdefault(found.pop("check"), []).append(Found(**found))
        failed = any(found.outcome == "fail" for each in self._findings.values() for found in each)
        assert done.status == int(failed), done

    def __getitem__(self, check: str) -> Found:
        """The one finding of this check."""
        [found] = self.all(check)
        return found

    def all(self, check: str) -> list[Found]:
        """The findings of this check."""
        return self._findings.get(check, [])
