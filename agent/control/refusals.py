"""The last refusals, for `replug status` and `replug explain`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

_LENGTH = 20  # refusals
_LONGEST_REASON = 500  # characters


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

    def add(self, request: str, program: str, reason: str, next_step: str, purpose: str) -> None:
        """Record a refusal that happened now."""
        self._refusals.append(
            Refusal(time.time(), request, program, reason[:_LONGEST_REASON], next_step, purpose)
        )

    def __iter__(self) -> Iterator[Refusal]:
        return iter(self._refusals)
