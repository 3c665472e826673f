"""The PKCS#11 module of tests/modules/odd.c: SoftHSM with the habits of other modules, which counts calls."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rigs.home import Home


class OddModule:
    """The module at `path` with `habits`, for the tokens of a home; `env` goes to what loads it."""

    def __init__(self, path: Path, home: Home, *habits: str) -> None:
        self.path = path
        self._calls = home.folder / "calls"
        self.env = {"ODD_HABITS": " ".join(habits), "ODD_CALLS": str(self._calls)}

    @property
    def calls(self) -> Counter[str]:
        """How often each function was called since `forget_calls`."""
        return Counter(line.split()[1] for line in self._lines())

    @property
    def sequence(self) -> list[str]:
        """The functions that were called, in order."""
        return [line.split()[1] for line in self._lines()]

    @property
    def processes(self) -> list[int]:
        """The processes that called it, each once, in order."""
        return list(dict.fromkeys(int(line.split()[0]) for line in self._lines()))

    def forget_calls(self) -> None:
        """Counts from now."""
        self._calls.unlink(missing_ok=True)

    def _lines(self) -> list[str]:
        return self._calls.read_text().splitlines() if self._calls.exists() else []
