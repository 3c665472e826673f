"""Whether a list of keys that was made before is still right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Changes:
    """What moves whenever any client may be listed something else."""

    clock: Callable[[], float]
    """The boot clock."""
    count: int = 0
    until: float | None = None
    """When the next lifetime ends; timers are late after a suspend."""

    def move(self) -> None:
        """Have all lists made again."""
        self.count += 1

    def since(self, count: int) -> bool:
        """Whether a list that was made at `count` has to be made again."""
        return count != self.count or (self.until is not None and self.clock() >= self.until)
