"""Which `[[key]]` are about which keys: found out once for each, as keys and rules may be many."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from replug.agent.config.key_match import fits
from replug.agent.config.key_rule import KeyRule
from replug.protocol.keys import fingerprint
from replug.protocol.messages import ListedIdentity

_MOST_KEPT = 8192
"""Keys; a list has 2048."""
_QUICK = 2000
"""To compare a key with more patterns and fingerprints takes too long for the event loop."""


@dataclass(frozen=True, slots=True)
class AboutKey:
    """A key, as rules go by it."""

    fingerprint: str
    rules: tuple[int, ...]
    """The places of the rules that are about it and say where it is offered."""


FindAbout: TypeAlias = Callable[[ListedIdentity], AboutKey]


def about_key(rules: Sequence[KeyRule], entry: ListedIdentity) -> AboutKey:
    """Compare the key with each rule."""
    key, comment = entry.key_blob, entry.comment
    about = (place for place, rule in enumerate(rules) if rule.chooses and fits(rule.match, key, comment))
    return AboutKey(fingerprint(key), tuple(about))


class AboutKeys:
    """What is known of the keys that were listed last; safe to fill in a thread."""

    def __init__(self, rules: Sequence[KeyRule]) -> None:
        self.rules = rules
        self._known: dict[bytes, AboutKey] = {}
        """By a hash: keys and comments may be long."""
        self._cost = sum(len(rule.match) for rule in rules if rule.chooses)

    def __call__(self, entry: ListedIdentity) -> AboutKey:
        """What the rules say of the key."""
        known = self._known.get(place := _place_of(entry))
        if known is None:
            if len(self._known) >= _MOST_KEPT:
                self._known = {}
            known = self._known[place] = about_key(self.rules, entry)
        return known

    def take_long(self, entries: Sequence[ListedIdentity]) -> bool:
        """Whether to find out about these is something for a thread."""
        if len(entries) * self._cost <= _QUICK:
            return False
        return sum(_place_of(entry) not in self._known for entry in entries) * self._cost > _QUICK

    def find(self, entries: Iterable[ListedIdentity]) -> None:
        """Find out about all of them."""
        for entry in entries:
            self(entry)


def _place_of(entry: ListedIdentity) -> bytes:
    return hashlib.sha256(entry.encoded).digest()
