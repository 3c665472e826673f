"""The list of identities as clients get it: no longer than they accept.

ssh and ssh-add read no list of more than 2048 keys or 256 KiB; a longer one would be of no use to anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from replug.agent.keys.identity import Identity
from replug.protocol.constants import MAX_MESSAGE
from replug.protocol.messages import IdentitiesAnswer, ListedIdentity

MOST_IDENTITIES = 2048
"""OpenSSH's SSH_AGENT_MAX_IDENTITIES (authfd.c: too many identities)."""
_ROOM = MAX_MESSAGE - 5  # bytes, without the message's type and the number of identities


@dataclass(frozen=True)
class Listing:
    """An answer, and the identities that it has no room for."""

    answer: IdentitiesAnswer
    left_out: tuple[Identity, ...]
    size: int
    """Bytes of what is in the answer."""

    def with_one_more(self, held: Identity, place: int) -> Listing | None:
        """The same with `held` as number `place`; None if there is no room, or others were left out."""
        entry = held.listed
        size, listed = self.size + len(entry.encoded), self.answer.identities
        if self.left_out or len(listed) >= MOST_IDENTITIES or size > _ROOM:
            return None
        return Listing(IdentitiesAnswer((*listed[:place], entry, *listed[place:])), (), size)

    @classmethod
    def of(cls, identities: Sequence[Identity]) -> Listing:
        """All of them if they fit, in order; else the token that has most to list goes short."""
        entries = [held.listed for held in identities]
        size = sum([len(entry.encoded) for entry in entries])
        if len(entries) <= MOST_IDENTITIES and size <= _ROOM:
            return cls(IdentitiesAnswer(tuple(entries)), (), size)
        listed = [*zip(identities, entries, strict=True)]
        kept = {id(held) for held in _fitting(listed)}
        there = tuple(entry for held, entry in listed if id(held) in kept)
        left_out = tuple(held for held, _ in listed if id(held) not in kept)
        return cls(IdentitiesAnswer(there), left_out, sum(len(entry.encoded) for entry in there))


def cut_to_fit(entries: Sequence[ListedIdentity]) -> tuple[ListedIdentity, ...]:
    """The first of the entries, as many as there is room for."""
    kept, room = [], _ROOM
    for entry in entries[:MOST_IDENTITIES]:
        room -= len(entry.encoded)
        if room < 0:
            break
        kept.append(entry)
    return tuple(kept)


def _fitting(listed: list[tuple[Identity, ListedIdentity]]) -> list[Identity]:
    sizes: dict[object, int] = {}
    for held, entry in listed:
        sizes[held.holder] = sizes.get(held.holder, 0) + len(entry.encoded)
    room = _ROOM
    kept: list[Identity] = []
    for held, entry in sorted(listed, key=lambda one: sizes[one[0].holder]):
        if len(entry.encoded) <= room and len(kept) < MOST_IDENTITIES:
            room -= len(entry.encoded)
            kept.append(held)
    return kept
