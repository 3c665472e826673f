"""The identities the agent holds, in the order they were added: software keys, and what providers have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import is_

from replug.agent.keys.added_provider import AddedProvider, Offer
from replug.agent.keys.held_keys import HeldKey, KeyOnToken, SoftwareKey
from replug.agent.keys.terms import Terms
from replug.protocol.messages import IdentitiesAnswer, Identity
from replug.token.boottime import boottime
from replug.token.presence import TokenState
from replug.token.provider import Provider
from replug.token.served import ServedToken


class Identities:
    """All entries. `clock` is the boot clock, in seconds."""

    def __init__(self, clock: Callable[[], float] = boottime) -> None:
        self._clock = clock
        self._entries: list[SoftwareKey | AddedProvider] = []
        self._made_of: list[SoftwareKey | Offer] = []
        self._held_now: list[HeldKey] = []
        self._next_end: float | None = None
        """When the next of these expires."""
        self.limited = False
        """Whether anything had, or was to have, a lifetime when they were last looked at."""
        self._answer = IdentitiesAnswer(())
        self._answer_of: list[HeldKey] = []

    def now(self) -> float:
        """The time, as `Terms.expires` counts it."""
        return self._clock()

    def listed(self, visible: Callable[[Terms], bool] = lambda _: True) -> list[HeldKey]:
        """What is listed of what is visible: each key once, unless all tokens that hold it are out."""
        listed: dict[bytes, HeldKey] = {}
        for held in self._held():
            out = isinstance(held, KeyOnToken) and held.token.state is TokenState.ABSENT
            if not out and held.blob not in listed and visible(held.terms):
                listed[held.blob] = held
        return list(listed.values())

    def answer(self, visible: Callable[[Terms], bool]) -> IdentitiesAnswer:
        """What is listed, as the answer that says so: the same object as long as that is the same."""
        listed = self.listed(visible)
        if listed != self._answer_of:
            self._answer = IdentitiesAnswer(tuple(Identity(held.blob, held.comment) for held in listed))
            self._answer_of = listed
        return self._answer

    def holding(self, blob: bytes) -> list[HeldKey]:
        """The identities with this blob, one for each token that has it: the one nearest to signing first."""
        return sorted((held for held in self._held() if held.blob == blob), key=lambda held: held.distance)

    def on(self, token: ServedToken) -> list[KeyOnToken]:
        """The identities that `token` holds, whether it is in or out."""
        held = (held for held in self._held() if isinstance(held, KeyOnToken) and held.token is token)
        return list({one.blob: one for one in held}.values())

    def software_keys(self) -> list[SoftwareKey]:
        """The identities that are on no token."""
        return [entry for entry in self._entries if isinstance(entry, SoftwareKey)]

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

    def add(self, entry: SoftwareKey | AddedProvider) -> None:
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
            entry for entry in self._entries if isinstance(entry, SoftwareKey) or not chosen(entry.provider)
        ]
        found = len(kept) < len(self._entries)
        self._entries = kept
        return found

    def remove(self, blob: bytes, visible: Callable[[Terms], bool] = lambda _: True) -> None:
        """Remove an identity from all entries where it is visible.

        A token's key is back when its provider is added again.
        """
        for entry in list(self._entries):
            if isinstance(entry, SoftwareKey):
                if entry.blob == blob and visible(entry.terms):
                    self._entries.remove(entry)
            elif any(one.blob == blob and visible(one.terms) for one in entry.offer.identities):
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

    def _providers(self) -> Iterator[AddedProvider]:
        return (entry for entry in self._entries if isinstance(entry, AddedProvider))

    def _leave_to_persons(self) -> None:
        """What a person has added is served on that person's terms alone.

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

    def _held(self) -> Sequence[HeldKey]:
        """Each identity once for each holder: in the place where it was added first, in the newest terms."""
        parts, now = self._parts(), self._clock()
        # Whether they are the same, which is told at once, not whether they are equal.
        as_before = len(parts) == len(self._made_of) and all(map(is_, parts, self._made_of))
        if not as_before or _is_over(self._next_end, now):
            self._leave_to_persons()
            self._made_of = parts = self._parts()
            as_added: list[HeldKey] = []
            self.limited = False
            for part in parts:
                if isinstance(part, SoftwareKey):
                    as_added.append(part)
                    self.limited |= part.terms.expires is not None
                else:
                    as_added += part.identities
                    self.limited |= part.limited
            # Of one provider's tokens some may have shorter lifetimes than others.
            held = [one for one in as_added if not _is_over(one.terms.expires, now)]
            self._held_now = list({(one.blob, one.holder): one for one in held}.values())
            ends = (one.terms.expires for one in held)
            self._next_end = min((end for end in ends if end is not None), default=None)
        return self._held_now

    def _parts(self) -> list[SoftwareKey | Offer]:
        return [entry if isinstance(entry, SoftwareKey) else entry.offer for entry in self._entries]


def _ends(entry: SoftwareKey | AddedProvider) -> list[float | None]:
    return [entry.terms.expires] if isinstance(entry, SoftwareKey) else entry.expiries


def _goes_on(entry: SoftwareKey | AddedProvider, now: float) -> bool:
    # What the configuration serves stays for tokens that are still to come.
    if isinstance(entry, AddedProvider) and entry.configured:
        return True
    return not all(_is_over(end, now) for end in _ends(entry))


def _is_over(end: float | None, now: float) -> bool:
    return end is not None and now >= end


def _same(one: SoftwareKey | AddedProvider, other: SoftwareKey | AddedProvider) -> bool:
    if isinstance(one, SoftwareKey):
        return isinstance(other, SoftwareKey) and one.blob == other.blob
    return isinstance(other, AddedProvider) and _same_provider(one.provider, other.provider)


def _same_provider(one: Provider, other: Provider) -> bool:
    return one.module is other.module and one.uri.same_choice(other.uri)
