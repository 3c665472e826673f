"""In which order a host is listed keys, and which of them it is not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from replug.agent.config.key_rule import Fit, KeyRule
from replug.agent.key_rules.about_keys import AboutKey
from replug.protocol.messages import ListedIdentity

FEW = 5
"""Keys that any server hears: sshd takes six (MaxAuthTries), and one try may go to something else."""


@dataclass(frozen=True)
class Place:
    """A key, and why it stands where it does."""

    entry: ListedIdentity
    fingerprint: str
    fit: Fit
    rule: KeyRule | None
    """The rule that says so; None without one."""


@dataclass(frozen=True)
class Order:
    """All keys of a list."""

    offered: tuple[Place, ...]
    left_out: tuple[Place, ...]
    accepted_first: bool = False
    """Whether keys that the host has accepted before were moved to the front."""
    none_fits: bool = False
    """Whether the rules leave out all keys, so that none is left out."""

    @property
    def entries(self) -> tuple[ListedIdentity, ...]:
        """What is listed."""
        return tuple(place.entry for place in self.offered)


def order(
    entries: Sequence[ListedIdentity],
    about: Iterable[AboutKey],
    rules: Sequence[KeyRule],
    how: Sequence[Fit],
    accepted: Collection[str],
    *,
    may_be_empty: bool = False,
) -> Order:
    """The keys as a host gets to see them.

    `about` has what is known of each by these rules, `how` says how each rule fits, and `accepted` has the
    fingerprints of keys that the host has accepted before. `may_be_empty`: there is something else to log in
    with.
    """
    places = [_place(entry, known, rules, how) for entry, known in zip(entries, about, strict=True)]
    offered = sorted((one for one in places if one.fit is not Fit.ELSEWHERE), key=lambda one: one.fit)
    left_out = [one for one in places if one.fit is Fit.ELSEWHERE]
    none_fits = bool(left_out) and not offered and not may_be_empty
    if none_fits:
        offered, left_out = left_out, []
    first = _accepted(offered, accepted)
    if first:
        behind = [one for one in offered if not any(one is other for other in first)]
        offered = [*first, *behind]
    return Order(tuple(offered), tuple(left_out), bool(first), none_fits)


def _place(entry: ListedIdentity, about: AboutKey, rules: Sequence[KeyRule], how: Sequence[Fit]) -> Place:
    """By the rule that fits best."""
    if not about.rules:
        return Place(entry, about.fingerprint, Fit.OPEN, None)
    best = min(about.rules, key=how.__getitem__)
    return Place(entry, about.fingerprint, how[best], rules[best])


def _accepted(offered: Sequence[Place], accepted: Collection[str]) -> list[Place]:
    """Those to move to the front: none if a server hears one of them without that.

    Never otherwise: which of several keys a host accepts first decides whose account it is.
    """
    if not accepted or len(offered) <= FEW:
        return []
    known = [one.fingerprint in accepted for one in offered]
    return [] if any(known[:FEW]) else [one for one, was in zip(offered, known, strict=True) if was]
