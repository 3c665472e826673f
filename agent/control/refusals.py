"""The last refusals, for `replug status` and `replug explain`."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from replug.token.requester import Program, Requester
from replug.token.turns import who_has_most

log = logging.getLogger(__name__)

_LENGTH = 20  # refusals
_LONGEST_REASON = 500  # characters
_REPEATED = 60.0  # seconds
_MOST_LOGGED = 200  # of a program, in a minute


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
        self._minute = time.monotonic()
        """When it began."""
        self._logged: Counter[Program | None] = Counter()
        """The refusals that were logged in this minute, by program."""

    def add(
        self, asker: Requester, request: str, program: str, reason: str, next_step: str, purpose: str
    ) -> bool:
        """Record a refusal that happened now; whether to log it.

        So it is unless it is repeated within a minute, or the program has had many: a log that takes only so
        many lines at a time (journald.conf(5), RateLimitBurst=) is to have room for signatures.
        """
        new = Refusal(time.time(), request, program, reason[:_LONGEST_REASON], next_step, purpose)
        repeated = any(
            replace(earlier, when=new.when) == new and 0 <= new.when - earlier.when < _REPEATED
            for earlier in self
        )
        self._refusals.append((asker, new))
        if len(self._refusals) > _LENGTH:
            most = who_has_most(Counter(its for its, _ in self._refusals))
            self._refusals.remove(next(one for one in self._refusals if one[0] == most))
        return not repeated and self._is_to_be_logged(asker, program)

    def _is_to_be_logged(self, asker: Requester, program: str) -> bool:
        now = time.monotonic()
        if now - self._minute >= _REPEATED:
            self._minute = now
            self._logged.clear()
        self._logged[asker.program] += 1
        if self._logged[asker.program] == _MOST_LOGGED + 1:
            log.warning(
                "too many refusals: no more of this program's in this minute", extra={"program": program}
            )
        return self._logged[asker.program] <= _MOST_LOGGED

    def __iter__(self) -> Iterator[Refusal]:
        return (refusal for _, refusal in self._refusals)
