"""How much memory the requests and replies of all connections may take together."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Protocol

from replug.token.requester import Requester
from replug.token.turns import who_has_most

log = logging.getLogger(__name__)

_MOST = 16 * 1024 * 1024  # bytes
LITTLE = 16 * 1024
"""Bytes of a connection that are not counted: those of usual messages."""
_SAID_AGAIN = 60.0  # seconds


class Holder(Protocol):
    """A connection, as it is seen from here."""

    asker: Requester

    def close(self) -> None:
        """End it; what it holds is free then."""


class Memory:
    """What connections hold that hold much. If it is too much, whoever holds most loses the largest."""

    def __init__(self) -> None:
        self._held: dict[Holder, int] = {}
        self._total = 0
        self._said_at = -_SAID_AGAIN

    def holds(self, holder: Holder, size: int) -> None:
        """The connection holds `size` bytes now."""
        if size <= LITTLE:
            self.forget(holder)
            return
        self._total += size - self._held.get(holder, 0)
        self._held[holder] = size
        while self._total > _MOST:
            self._make_room()

    def forget(self, holder: Holder) -> None:
        """The connection holds nothing any more."""
        self._total -= self._held.pop(holder, 0)

    def _make_room(self) -> None:
        of_process: Counter[Requester] = Counter()
        for holder, size in self._held.items():
            of_process[holder.asker] += size
        most = who_has_most(of_process)
        largest = max((one for one in self._held if one.asker == most), key=self._held.__getitem__)
        now = time.monotonic()
        if now - self._said_at > _SAID_AGAIN:
            self._said_at = now
            log.warning(
                "connection closed: all requests together are too large, and its process has most of them",
                extra={"bytes": self._held[largest], "pid": most.pid},
            )
        self.forget(largest)
        largest.close()
