"""Lists of more keys than servers hear, after which no signature came: the login has failed, probably."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from replug.protocol.purpose import Host
from replug.protocol.purpose_text import host_in_words

log = logging.getLogger(__name__)

_MOST_HOSTS = 500
_SOON = 600.0  # seconds
_NOTED = 2  # lists in that time


@dataclass
class _Lists:
    first: float
    """When, by the monotonic clock."""
    count: int = 0


class UnusedLists:
    """Those of the last ten minutes, by the fingerprints of the hosts' keys."""

    def __init__(self) -> None:
        self._lists: dict[str, _Lists] = {}

    def listed(self, host: Host, keys: int, program: str) -> None:
        """Note that a program was listed so many keys for a login at `host`; the second time, say so."""
        now = time.monotonic()
        lists = self._lists.pop(host.fingerprint, None)
        if lists is None or now - lists.first > _SOON:
            lists = _Lists(now)
        lists.count += 1
        self._lists[host.fingerprint] = lists
        if len(self._lists) > _MOST_HOSTS:
            del self._lists[next(iter(self._lists))]
        if lists.count == _NOTED:
            log.info(
                "many keys were listed, and none was used",
                extra={
                    "keys": keys,
                    "destination": host_in_words(host),
                    "program": program,
                    "next_step": "servers hear about 6 keys: name those for this host in a [[key]]",
                },
            )

    def was_used(self, host: str) -> bool:
        """Note that a login was signed there; whether it was listed many keys since the last one."""
        return self._lists.pop(host, None) is not None
