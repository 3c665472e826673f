"""Tells tokens of one module apart that are alike: cards with zeros for a serial, copies, many TPMs.

A token is known by its public keys; where they are not shown before login, or are on several of them, by its
slot.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from replug.token.identity import TokenId, TokenInfo


@dataclass(frozen=True)
class Known:
    """A token that is served: where it was last, and its keys by their blobs."""

    identity: TokenId
    slot: int | None
    keys: AbstractSet[bytes]


@dataclass(frozen=True)
class Seen:
    """A token in a slot, and the keys that it shows without login."""

    info: TokenInfo
    keys: AbstractSet[bytes]


def tell_apart(seen: Sequence[Seen], served: Collection[Known]) -> list[TokenId]:
    """Who those in the slots are, in their order. All, and all that are served, have the same original."""
    who: dict[int, TokenId] = {}
    free = {known.identity: known for known in served}

    def take(one: Seen, known: Known) -> None:
        who[one.info.slot] = known.identity
        del free[known.identity]

    def rank(pair: tuple[Seen, Known]) -> tuple[int, bool]:
        one, known = pair
        return len(one.keys & known.keys), one.info.slot == known.slot

    pairs = [(one, known) for one in seen for known in served if one.keys & known.keys]
    # The sort is stable: among equals the first one counts.
    for one, known in sorted(pairs, key=rank, reverse=True):
        if one.info.slot not in who and known.identity in free:
            take(one, known)
    for one in seen:
        if one.info.slot not in who:
            # Keys that one shows and the other does not have prove that they are two.
            may_be = [known for known in free.values() if not (one.keys and known.keys)]
            may_be.sort(key=lambda known: known.slot != one.info.slot)
            if may_be:
                take(one, may_be[0])
            else:
                taken = {*who.values(), *(known.identity for known in served)}
                who[one.info.slot] = _next_copy(one.info.identity, taken)
    return [who[one.info.slot] for one in seen]


def _next_copy(identity: TokenId, taken: Collection[TokenId]) -> TokenId:
    copy = 0
    while replace(identity, copy=copy) in taken:
        copy += 1
    return replace(identity, copy=copy)
