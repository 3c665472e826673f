"""The identities the agent holds, in the order they were added: software keys, and what providers have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import is_

from replug.agent.keys.constraints import KeyConstraints
from replug.agent.keys.identity import Identity, SoftwareIdentity, TokenBackedIdentity
from replug.agent.keys.served_provider import Offer, ServedProvider
from replug.protocol.messages import IdentitiesAnswer, ListedIdentity
from replug.token.boottime import boottime
from replug.token.presence import TokenState
from replug.token.provider import Provider
from replug.token.served import ServedToken


class Identities:
    """All entries. `clock` is the boot clock, in seconds."""

    def __init__(self, clock: Callable[[], float] = boottime) -> None:
        self._clock = clock
        self._entries: list[SoftwareIdentity | ServedProvider] = []
        self._made_of: list[SoftwareIdentity | Offer] = []
        self._held_now: list[Identity] = []
        self._next_end: float | None = None
        """When the next of these expires."""
        self.limited = False
        """Whether anything had, or was to have, a lifetime when they were last looked at."""
        self._answer = IdentitiesAnswer(())
        self._answer_of: list[Identity] = []

    def now(self) -> float:
        """The time, as `KeyConstraints.expires` counts it."""
        return self._clock()

    def listed(self, visible: Callable[[KeyConstraints], bool] = lambda _: True) -> list[Identity]:
        """What is listed of what is visible: each key once, unless all tokens that hold it are out."""
        listed: dict[bytes, Identity] = {}
        for held in self._held():
            out = isinstance(held, TokenBackedIdentity) and held.token.state is TokenState.ABSENT
            if not out and held.blob not in listed and visible(held.constraints):
                listed[held.blob] = held
        return list(listed.values())

    def answer(self, visible: Callable[[KeyConstraints], bool]) -> IdentitiesAnswer:
        """What is listed, as the answer that says so: the same object as long as that is the same."""
        listed = self.listed(visible)
        if listed != self._answer_of:
            self._answer = IdentitiesAnswer(tuple(ListedIdentity(held.blob, held.comment) for held in listed))
            self._answer_of = listed
        return self._answer

    def holding(self, blob: bytes) -> list[Identity]:
        """The identities with this blob, one for each token that has it: the one nearest to signing first."""
        return sorted((held for held in self._held() if held.blob == blob), key=lambda held: held.distance)

    def on(self, token: ServedToken) -> list[TokenBackedIdentity]:
        """The identities that `token` holds, whether it is in or out."""
        held = (
            held for held in self._held() if isinstance(held, TokenBackedIdentity) and held.token is token
        )
        return list({one.blob: one for one in held}.values())

    def software_keys(self) -> list[SoftwareIdentity]:
        """The identities that are on no token."""
        return [entry for entry in self._entries if isinstance(entry, SoftwareIdentity)]

    def lifetime_left(self, token: ServedToken) -> float | None:
        """Seconds until nothing serves `token` and its PIN is forgotten; None if that is not planned."""
        times = [added.expires_on(token) for added in self._providers() if added.provider.serves(token)]
        limited = [expires for expires in times if expires is not None]
        return max(limited) - self._clock() if limited and len(limited) == len(times) else None

    def over(self, token: ServedToken) -> bool:
        """Whether the lifetimes of all that `token` is served for have ended."""
        times = [added.expires_on(token) for added in self._providers() if added.provider.serves(token)]
        return bool(times) and all(_is_over(end, self._clock()) for end in times)

    def providers(self) -> list[Provider]:
        """The providers, in the order they were added."""
        return [added.provider for added in self._providers()]

    def add(self, entry: SoftwareIdentity | ServedProvider) -> None:
        """Add an entry, in the place of the one that is for the same key or provider if there is one."""
        for place, there in enumerate(self._entries):
            if _same(there, entry):
                self._entries[place] = entry
                return
        self._entries.append(entry)

    def has(self, provider: Provider) -> bool:
        """Whether this provider was added."""
        return any(_same_provider(added.provider, provider) for added in self._providers())

    def restore_configured(self, named: Sequence[Provider]) -> None:
        """Of what the configuration serves keep what it has `named`, and that with all its identities."""
        for added in list(self._providers()):
            if added.configured:
                added.removed = frozenset()
                if not any(_same_provider(added.provider, provider) for provider in named):
                    self._entries.remove(added)

    def remove_provider(self, chosen: Callable[[Provider], bool]) -> bool:
        """Remove the providers that `chosen` says; whether there was one."""
        self._leave_to_persons()
        kept = [
            entry
            for entry in self._entries
            if isinstance(entry, SoftwareIdentity) or not chosen(entry.provider)
        ]
        found = len(kept) < len(self._entries)
        self._entries = kept
        return found

    def remove(self, blob: bytes, visible: Callable[[KeyConstraints], bool] = lambda _: True) -> None:
        """Remove an identity from all entries where it is visible.

        A token's key is back when its provider is added again.
        """
        for entry in list(self._entries):
            if isinstance(entry, SoftwareIdentity):
                if entry.blob == blob and visible(entry.constraints):
                    self._entries.remove(entry)
            elif any(one.blob == blob and visible(one.constraints) for one in entry.offer.identities):
                entry.removed |= {blob}

    def clear(self) -> None:
        """Remove everything."""
        self._entries.clear()
        self._held()  # which forgets what it was made of
        self._answer, self._answer_of = IdentitiesAnswer(()), []

    def drop_expired(self) -> bool:
        """Remove what has outlived its lifetime; whether there was any."""
        self._held()
        if not self.limited:
            return False
        now = self._clock()
        kept = [entry for entry in self._entries if _goes_on(entry, now)]
        expired = len(kept) < len(self._entries)
        self._entries = kept
        return expired

    def next_expiry(self) -> float | None:
        """Seconds until the next identity expires; None if none will."""
        now = self._clock()
        times = [
            max(0.0, end - now)
            for entry in self._entries
            for end in _ends(entry)
            # What is over in a provider that goes on has been dealt with.
            if end is not None and not (_is_over(end, now) and _goes_on(entry, now))
        ]
        return min(times, default=None)

    def _providers(self) -> Iterator[ServedProvider]:
        return (entry for entry in self._entries if isinstance(entry, ServedProvider))

    def _leave_to_persons(self) -> None:
        """What a person has added is served on that person's constraints alone.

        It has their constraints, and when they remove it, or its lifetime ends, it is gone for good. Called
        whenever something is there that was not before: their tokens may have come since.
        """
        providers = list(self._providers())
        configured = [added for added in providers if added.configured]
        if configured and len(configured) < len(providers):
            added_by_persons = (added for added in providers if not added.configured)
            theirs = {held.blob for added in added_by_persons for held in added.offer.identities}
            for added in configured:
                added.removed |= theirs

    def _held(self) -> Sequence[Identity]:
        """Each identity once for each holder: where it was added first, with the newest constraints."""
        parts, now = self._parts(), self._clock()
        # Whether they are the same, which is told at once, not whether they are equal.
        as_before = len(parts) == len(self._made_of) and all(map(is_, parts, self._made_of))
        if not as_before or _is_over(self._next_end, now):
            self._leave_to_persons()
            self._made_of = parts = self._parts()
            as_added: list[Identity] = []
            self.limited = False
            for part in parts:
                if isinstance(part, SoftwareIdentity):
                    as_added.append(part)
                    self.limited |= part.constraints.expires is not None
                else:
                    as_added += part.identities
                    self.limited |= part.limited
            # Of one provider's tokens some may have shorter lifetimes than others.
            held = [one for one in as_added if not _is_over(one.constraints.expires, now)]
            self._held_now = list({(one.blob, one.holder): one for one in held}.values())
            ends = (one.constraints.expires for one in held)
            self._next_end = min((end for end in ends if end is not None), default=None)
        return self._held_now

    def _parts(self) -> list[SoftwareIdentity | Offer]:
        return [entry if isinstance(entry, SoftwareIdentity) else entry.offer for entry in self._entries]


def _ends(entry: SoftwareIdentity | ServedProvider) -> list[float | None]:
    return [entry.constraints.expires] if isinstance(entry, SoftwareIdentity) else entry.expiries


def _goes_on(entry: SoftwareIdentity | ServedProvider, now: float) -> bool:
    # What the configuration serves stays for tokens that are still to come.
    if isinstance(entry, ServedProvider) and entry.configured:
        return True
    return not all(_is_over(end, now) for end in _ends(entry))


def _is_over(end: float | None, now: float) -> bool:
    return end is not None and now >= end


def _same(one: SoftwareIdentity | ServedProvider, other: SoftwareIdentity | ServedProvider) -> bool:
    if isinstance(one, SoftwareIdentity):
        return isinstance(other, SoftwareIdentity) and one.blob == other.blob
    return isinstance(other, ServedProvider) and _same_provider(one.provider, other.provider)


def _same_provider(one: Provider, other: Provider) -> bool:
    return one.module is other.module and one.uri.same_choice(other.uri)
