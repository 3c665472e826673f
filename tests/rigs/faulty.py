"""The steered PKCS#11 module of tests/modules/faulty.c: SoftHSM that hangs, crashes, fails and counts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from rigs.home import Home
from rigs.softhsm import Token, copy_token
from rigs.terminal import eventually


class Faulty:
    """One copy of the module, steered through a folder of its own; `env` goes to the agent.

    Its only token is `token`, called `faulty`, with the key `public`: none of it shows in plain SoftHSM. It
    is a copy of `like` if that is given. With several modules in one agent, none gets its `env`.
    """

    def __init__(self, home: Home, built: Path, name: str = "faulty", like: Token | None = None) -> None:
        folder = home.folder / name
        folder.mkdir()
        self.home = Home(folder)
        if like is None:
            self.token = Token(self.home, "faulty")
            self.token.add("p256", "faulty-p256")
        else:
            self.token = copy_token(like, self.home)
        self.public = self.token.public("faulty-p256")
        self.module = self.home.folder / "faulty.so"
        self.module.write_bytes(built.read_bytes())
        self.env = {"FAULTY_MODULE_DIR": str(self.home.folder)}

    def tell(self, name: str, order: str | bytes | None) -> None:
        """Writes the steering file `name`; None removes it: the function behaves again."""
        path = self.home.folder / name
        if order is None:
            path.unlink(missing_ok=True)
            return
        # Renamed into place, so that the module never reads half an order.
        new = path.with_suffix(".new")
        new.write_bytes(order.encode() if isinstance(order, str) else order)
        new.rename(path)

    def returns(self, function: str) -> list[int]:
        """What each finished call of `function` returned, oldest first."""
        return [int(rv, 16) for _, name, rv in self._calls() if name == function and rv != "-"]

    def entered(self, function: str) -> int:
        """How often `function` has been called."""
        return len(self._entries(function))

    def await_calls(self, function: str, count: int = 1, within: float = 10) -> None:
        """Waits until `function` has been called `count` times, ever."""
        eventually(lambda: self.entered(function) >= count, f"{count} calls of {function}", within)

    def calls(self) -> int:
        """How often any of its steered functions has been called."""
        return sum(rv == "-" for _, _, rv in self._calls())

    def scans(self) -> int:
        """How often its slots have been listed and then a token asked who it is."""
        names = [name for _, name, rv in self._calls() if rv == "-"]
        return list(pairwise(names)).count(("C_GetSlotList", "C_GetTokenInfo"))

    def processes_in(self, function: str, count: int) -> set[int]:
        """The ids of the processes that the last `count` calls of `function` were in."""
        return {int(pid) for pid in self._entries(function)[-count:]}

    def process_in(self, function: str) -> int:
        """The id of the process that entered `function` last."""
        return int(self._entries(function)[-1])

    def _entries(self, function: str) -> list[str]:
        return [pid for pid, name, rv in self._calls() if name == function and rv == "-"]

    def _calls(self) -> list[list[str]]:
        calls = self.home.folder / "calls"
        return [line.split() for line in calls.read_text().splitlines()] if calls.exists() else []
