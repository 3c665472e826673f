"""Which keys the hosts have accepted, as ssh signs only with a key that the host has said yes to.

Kept over restarts, in `destinations.json` in the state folder: fingerprints of keys, and nothing of hosts
that known_hosts does not have.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from replug.agent.clients.client import Client
from replug.agent.key_rules import destinations_file
from replug.agent.key_rules.unused_lists import UnusedLists
from replug.protocol.keys import fingerprint
from replug.protocol.purpose import Login, Purpose
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread
from replug.token.written_later import WrittenLater

log = logging.getLogger(__name__)

_MOST_HOSTS = 500
_MOST_KEYS = 16  # of one host
_NEWS = 24 * 3600  # seconds: to have been used this much later is worth writing down
_PATIENCE = 1.0  # seconds for the file: the first list of keys waits


@dataclass(frozen=True)
class Accepted:
    """The fingerprints of the keys that a host has accepted, and when it last did (seconds since 1970)."""

    keys: tuple[str, ...]
    used: float


class Destinations:
    """What is known of hosts, by the fingerprints of their keys; the one used last comes last."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """`changed` is called when a host may be listed its keys in another order."""
        self._changed = changed
        self._known: dict[str, Accepted] = {}
        self._loaded = False
        failure = "which keys hosts accept is not remembered"
        self._file = WrittenLater(Share.DESTINATIONS, self._contents, failure)
        self.unused = UnusedLists()

    async def load(self) -> None:
        """Read the file, once. What is wrong with it is logged."""
        try:
            async with asyncio.timeout(_PATIENCE):
                known = await in_daemon_thread(Share.DESTINATIONS, destinations_file.read)
        except (TimeoutError, TooManyThreadsError):
            log.info("which keys hosts accept is unknown", extra={"why": "the file system does not answer"})
            return
        found = ((host, Accepted(keys[-_MOST_KEYS:], used)) for host, (keys, used) in known.items())
        self._known = dict([*found][-_MOST_HOSTS:])
        self._loaded = True
        self._changed()

    def accepted(self, host: str) -> tuple[str, ...]:
        """The fingerprints of the keys that the host with this key has accepted."""
        known = self._known.get(host)
        return () if known is None else known.keys

    def __iter__(self) -> Iterator[tuple[str, Accepted]]:
        return iter(self._known.items())

    def used(self, client: Client, purpose: Purpose, key_blob: bytes) -> None:
        """Learn from a signature that was made: where more keys are listed than servers hear."""
        host = client.logs_in_at
        if host is None or not isinstance(purpose.signed, Login) or client.guest is not None:
            return
        if self.unused.was_used(host.fingerprint) and host.is_known:
            self._learn(host.fingerprint, fingerprint(key_blob))

    def _learn(self, host: str, key: str) -> None:
        before, now = self._known.pop(host, Accepted((), 0.0)), time.time()
        keys = before.keys if key in before.keys else (*before.keys, key)[-_MOST_KEYS:]
        self._known[host] = Accepted(keys, now)
        while len(self._known) > _MOST_HOSTS:
            del self._known[next(iter(self._known))]
        if keys != before.keys:
            self._changed()
        if self._loaded and (keys != before.keys or abs(now - before.used) > _NEWS):
            self._file.plan()

    async def forget(self) -> None:
        """Forget all hosts, and remove the file. Raises OSError, ExplainedError."""
        self._known = {}
        self._changed()
        await self._file.withdraw()
        await in_daemon_thread(Share.DESTINATIONS, destinations_file.remove)

    def _contents(self) -> Callable[[], None]:
        known = {host: (one.keys, one.used) for host, one in self._known.items()}
        return lambda: destinations_file.write(known)
