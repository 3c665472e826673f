"""What a request or the configuration adds: a key, or a provider with its identities."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from replug.agent.keys.identity import AddedIdentity, Identity
from replug.agent.keys.served_provider import ServedProvider
from replug.token.modules.provider import Provider

Entry: TypeAlias = AddedIdentity | ServedProvider


def is_configured(entry: Entry) -> bool:
    """Whether the configuration has the agent serve it, and no user added it."""
    return isinstance(entry, ServedProvider) and entry.configured


def identities_of(entry: Entry) -> Sequence[Identity]:
    """Those of a provider may be of tokens that are out."""
    return (entry,) if isinstance(entry, AddedIdentity) else entry.identities


def ends_of(entry: Entry) -> list[float | None]:
    """When the lifetimes end, on the boot clock; None is never."""
    return [entry.constraints.expires] if isinstance(entry, AddedIdentity) else entry.expiries


def goes_on(entry: Entry, now: float) -> bool:
    """Whether it is to be kept at the time `now`."""
    # What the configuration serves stays for tokens that are still to come.
    if is_configured(entry):
        return True
    return not all(is_over(end, now) for end in ends_of(entry))


def is_over(end: float | None, now: float) -> bool:
    """Whether a lifetime that ends at `end` has ended at the time `now`."""
    return end is not None and now >= end


def same_entry(one: Entry, other: Entry) -> bool:
    """Whether adding the one replaces the other."""
    if isinstance(one, AddedIdentity):
        return isinstance(other, AddedIdentity) and one.blob == other.blob
    return isinstance(other, ServedProvider) and same_provider(one.provider, other.provider)


def same_provider(one: Provider, other: Provider) -> bool:
    """Whether they are the same choice of the same module's keys."""
    return one.module is other.module and one.uri.same_choice(other.uri)


class UsersShare(NamedTuple):
    """How much of each of `Identities`' lists users have added; what is served unasked comes after it."""

    entries: int
    held: int
    listed: int

    @classmethod
    def of(cls, entries: Sequence[Entry], held: Sequence[Identity], listed: Sequence[Identity]) -> UsersShare:
        """Of lists that are in order."""
        served = next((number for number, entry in enumerate(entries) if is_configured(entry)), None)
        if served is None:
            return cls(len(entries), len(held), len(listed))
        added = {(one.blob, one.holder) for entry in entries[:served] for one in identities_of(entry)}

        def count(identities: Iterable[Identity]) -> int:
            return sum((one.blob, one.holder) in added for one in identities)

        return cls(served, count(held), count(listed))
