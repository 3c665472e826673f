"""The identities the agent holds: keys that were added, and those of providers.

What users have added comes first, in the order it was added, and then what the agent serves by itself: ssh
tries the keys in this order, and servers let it try only a few.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from replug.agent.keys.changes import Changes
from replug.agent.keys.entry import (
    Entry,
    UsersShare,
    ends_of,
    goes_on,
    identities_of,
    is_configured,
    is_over,
    same_entry,
    same_provider,
)
from replug.agent.keys.identity import (
    AddedIdentity,
    Identity,
    SecurityKeyIdentity,
    SoftwareIdentity,
    TokenBackedIdentity,
)
from replug.agent.keys.issued import IssuedIdentities, IssuedIdentity
from replug.agent.keys.served_provider import ServedProvider
from replug.agent.keys.shown import Shown
from replug.token.modules.provider import Provider
from replug.token.serving.served import ServedToken


class Identities:
    """All entries, and what clients are shown of them."""

    def __init__(
        self, lists_absent: Callable[[], bool], is_ca: Callable[[Identity], bool], changes: Changes
    ) -> None:
        """`lists_absent` says whether keys whose tokens are out are listed, after all others.

        `is_ca` says which are CA keys by the configuration; `changed` is to be called when that changes.
        """
        self._changes = changes
        self.shown = Shown(lists_absent, is_ca)
        self._issued = IssuedIdentities()
        self._entries: list[Entry] = []
        """In the order they are listed in."""
        self._held: list[Identity] = []
        """Each blob once for each holder, at the first entry's place, with the last entry's constraints."""
        self.shown.arrange(self._held)
        self._holding: dict[bytes, list[Identity]] = {}
        """The same by blob."""
        self._known: set[bytes] = set()
        """The blobs of all entries, also of those whose lifetime is over."""
        self._added = UsersShare(0, 0, 0)
        self.limited = False
        """Whether anything has a lifetime, whether that has ended or not."""

    def now(self) -> float:
        """The time, as `KeyConstraints.expires` counts it."""
        return self._changes.clock()

    def holding(self, blob: bytes) -> list[Identity]:
        """The identities with this blob, one for each token that has it: the one nearest to signing first.

        Those whose lifetime has ended are not among them, though they may not have been dropped yet.
        """
        holding = self._holding.get(blob)
        if holding is None:
            return self._issued_with(blob)
        if self.limited:
            now = self._changes.clock()
            holding = [held for held in holding if not is_over(held.constraints.expires, now)]
        return holding if len(holding) < 2 else sorted(holding, key=lambda held: held.distance)

    def _issued_with(self, blob: bytes) -> list[Identity]:
        issued = self._issued.of(blob, time.time())
        if isinstance(issued, IssuedIdentity) and issued.holder is not None:
            return [issued.by(held) for held in self.holding(issued.certified.blob)]
        return [] if issued is None else [issued]

    def use_issued(self, issued: Iterable[Identity]) -> None:
        """Have these, and no others, for signatures; for whom they are listed is up to agent/ca."""
        self._issued.replace(issued)
        self._changes.move()

    def of_key(self, key_fingerprint: str) -> list[Identity]:
        """The identities with this key, certificates not included, the nearest to signing first."""
        found = (blob for blob, held in self._holding.items() if held[0].fingerprint == key_fingerprint)
        return [held for blob in found for held in self.holding(blob) if not held.is_certificate]

    def on_tokens(self, visible: Callable[[Identity], bool]) -> list[TokenBackedIdentity]:
        """The keys that are listed for a client and are on a token; no certificates, and no CA keys."""
        listed = (held for held in self.shown.to(visible) if isinstance(held, TokenBackedIdentity))
        return [held for held in listed if not held.is_certificate and not self.shown.is_ca(held)]

    def on(self, token: ServedToken) -> list[TokenBackedIdentity]:
        """The identities that `token` holds, whether it is in or out."""
        held = (held for held in self._held if isinstance(held, TokenBackedIdentity) and held.token is token)
        return list({one.blob: one for one in held}.values())

    @property
    def count(self) -> int:
        """How many there are: each once for each provider that has it."""
        return sum(len(identities_of(entry)) for entry in self._entries)

    @property
    def kept_destinations(self) -> int:
        """How many destinations the entries were added with, and host keys in them."""
        return sum([one.size for entry in self._entries for one in entry.constraints.destinations])

    def software_keys(self) -> list[SoftwareIdentity]:
        """The identities whose private keys the agent has."""
        return [entry for entry in self._entries if isinstance(entry, SoftwareIdentity)]

    def security_keys(self) -> list[SecurityKeyIdentity]:
        """The identities whose private keys are in FIDO authenticators."""
        return [entry for entry in self._entries if isinstance(entry, SecurityKeyIdentity)]

    def lifetime_left(self, token: ServedToken) -> float | None:
        """Seconds until nothing serves `token` and its PIN is forgotten; None if that is not planned."""
        times = [added.expires_on(token) for added in self._providers() if added.provider.serves(token)]
        limited = [expires for expires in times if expires is not None]
        return max(limited) - self._changes.clock() if limited and len(limited) == len(times) else None

    def over(self, token: ServedToken) -> bool:
        """Whether the lifetime of `token`'s keys has ended in every provider that serves it."""
        times = [added.expires_on(token) for added in self._providers() if added.provider.serves(token)]
        return bool(times) and all(is_over(end, self._changes.clock()) for end in times)

    def providers(self) -> list[Provider]:
        """The providers, in the order they were added."""
        return [added.provider for added in self._providers()]

    def changed(self) -> None:
        """Follow a change of tokens, settings or certificates."""
        for provider in self._providers():
            provider.update()
        self._arrange()

    def add(self, entry: Entry) -> None:
        """Add an entry, in the place of the one that is for the same key or provider if there is one."""
        if isinstance(entry, AddedIdentity) and self._append(entry):
            return
        place = next(
            (i for i, there in enumerate(self._entries) if same_entry(there, entry)), len(self._entries)
        )
        self._entries[place : place + 1] = [entry]
        self._entries.sort(key=is_configured)
        self._arrange()

    def _append(self, key: AddedIdentity) -> bool:
        """Add a key behind all that users added, as `_arrange` would, without going through thousands.

        False if it is no such key, or it changes more than that.
        """
        end = key.constraints.expires
        if key.blob in self._known or self.shown.lists_absent() or is_over(end, self._changes.clock()):
            return False
        added = self._added
        if not self.shown.append(key, added.listed):
            return False
        self._entries.insert(added.entries, key)
        self._known.add(key.blob)
        self._held.insert(added.held, key)
        self._holding[key.blob] = [key]
        self._added = UsersShare(*[end + 1 for end in added])
        self._changes.move()
        if end is not None:
            self.limited = True
            until = self._changes.until
            self._changes.until = end if until is None else min(end, until)
        return True

    def has(self, provider: Provider) -> bool:
        """Whether this provider was added."""
        return any(same_provider(added.provider, provider) for added in self._providers())

    def restore_configured(self, named: Sequence[Provider]) -> None:
        """Remove configured providers that are not in `named`; restore removed identities of the others."""
        for served in list(self._providers()):
            if served.configured:
                served.removed = frozenset()
                if not any(same_provider(served.provider, provider) for provider in named):
                    self._entries.remove(served)
        self.changed()

    def remove_provider(self, chosen: Callable[[Provider], bool]) -> bool:
        """Remove the providers for which `chosen` returns true; returns whether there were any."""
        return self._keep(lambda entry: isinstance(entry, AddedIdentity) or not chosen(entry.provider))

    def remove(self, blob: bytes, visible: Callable[[Identity], bool]) -> None:
        """Remove an identity from all entries where it is visible.

        A token's key is back when its provider is added again.
        """
        for entry in list(self._entries):
            if isinstance(entry, AddedIdentity):
                if entry.blob == blob and visible(entry):
                    self._entries.remove(entry)
            elif any(one.blob == blob and visible(one) for one in entry.identities):
                entry.removed |= {blob}
                entry.update()
        self._arrange()

    def clear(self) -> None:
        """Remove everything."""
        self._keep(lambda _: False)

    def drop_expired(self) -> bool:
        """Remove entries whose lifetime has ended; returns whether there were any."""
        now = self._changes.clock()
        if self._changes.until is None or now < self._changes.until:
            return False
        return self._keep(lambda entry: goes_on(entry, now))

    def next_expiry(self) -> float | None:
        """Seconds until the next lifetime ends; None if none will."""
        end = self._changes.until
        return None if end is None else max(0.0, end - self._changes.clock())

    def _keep(self, wanted: Callable[[Entry], bool]) -> bool:
        before = len(self._entries)
        self._entries = [entry for entry in self._entries if wanted(entry)]
        self._arrange()
        return len(self._entries) < before

    def _providers(self) -> Iterator[ServedProvider]:
        return (entry for entry in self._entries if isinstance(entry, ServedProvider))

    def _arrange(self) -> None:
        """Compute what the queries return, after a change."""
        self._leave_to_users()
        now = self._changes.clock()
        held = [one for entry in self._entries for one in identities_of(entry)]
        # Of one provider's tokens some may have shorter lifetimes than others.
        current = [one for one in held if (end := one.constraints.expires) is None or now < end]
        self._held = list({(one.blob, one.holder): one for one in current}.values())
        self._holding = {}
        for one in self._held:
            self._holding.setdefault(one.blob, []).append(one)
        self.shown.arrange(self._held)
        self._added = UsersShare.of(self._entries, self._held, self.shown.all)
        self._known = {one.blob for one in held}
        ends = [end for entry in self._entries for end in ends_of(entry) if end is not None]
        self.limited = bool(ends)
        self._changes.until = min((end for end in ends if not is_over(end, now)), default=None)
        self._changes.move()

    def _leave_to_users(self) -> None:
        """Have configured providers give up the keys that a user has added, too.

        Such a key is served with the user's constraints only, and does not come back from the configuration
        when the user removes it or its lifetime added.
        """
        providers = list(self._providers())
        configured = [served for served in providers if served.configured]
        if configured and len(configured) < len(providers):
            added = (served for served in providers if not served.configured)
            theirs = {held.blob for served in added for held in served.identities}
            for served in configured:
                if not theirs <= served.removed:
                    served.removed |= theirs
                    served.update()
