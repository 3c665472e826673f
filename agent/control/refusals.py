"""The last refusals, for `replug status` and `replug explain`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

_LENGTH = 20  # refusals
_LONGEST_REASON = 500  # characters
_REPEATED = 60.0  # seconds


@dataclass(frozen=True)
class Refusal:
    """One refused request."""

    when: float
    """Seconds since the epoch."""
    request: str
    program: str
    reason: str
    next_step: str
    purpose: str
    """What was to be signed; empty for other requests."""


class RefusalHistory:
    """The last refusals, oldest first."""

    def __init__(self) -> None:
        self._refusals: deque[Refusal] = deque(maxlen=_LENGTH)

    def add(self, request: str, program: str, reason: str, next_step: str, purpose: str) -> bool:
        """Record a refusal that happened now; whether it is news, and not repeated within a minute."""
        new = Refusal(time.time(), request, program, reason[:_LONGEST_REASON], next_step, purpose)
        repeated = any(
            replace(earlier, when=new.when) == new and 0 <= new.when - earlier.when < _REPEATED
            for earlier in self._refusals
        )
        self._refusals.append(new)
        return not repeated

    def __iter__(self) -> Iterator[Refusal]:
        return iter(self._refusals)
