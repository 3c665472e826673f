"""The last refusals, for `replug status` and `replug explain`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from replug.token.requester import Requester
from replug.token.turns import who_has_most

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
    """The last refusals, oldest first. Whoever has most of them loses the first: others look for theirs."""

    def __init__(self) -> None:
        self._refusals: list[tuple[Requester, Refusal]] = []

    def add(
        self, asker: Requester, request: str, program: str, reason: str, next_step: str, purpose: str
    ) -> bool:
        """Record a refusal that happened now; whether it is news, and not repeated within a minute."""
        new = Refusal(time.time(), request, program, reason[:_LONGEST_REASON], next_step, purpose)
        repeated = any(
            replace(earlier, when=new.when) == new and 0 <= new.when - earlier.when < _REPEATED
            for earlier in self
        )
        self._refusals.append((asker, new))
        if len(self._refusals) > _LENGTH:
            most = who_has_most(Counter(its for its, _ in self._refusals))
            self._refusals.remove(next(one for one in self._refusals if one[0] == most))
        return not repeated

    def __iter__(self) -> Iterator[Refusal]:
        return (refusal for _, refusal in self._refusals)
