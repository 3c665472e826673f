"""The identities the agent holds, in the order they were added.

A provider that was added is one entry; its keys are read from the tokens whenever they are needed, so that
those of a token that is out are not listed, and are again when it is back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from replug.agent.boottime import boottime
from replug.token.keys import TokenKey
from replug.token.provider import Provider
from replug.token.served import ServedToken, TokenState


@dataclass(frozen=True)
class HeldKey:
    """An identity, and the token that signs with it."""

    key: TokenKey
    token: ServedToken
    comment: str


@dataclass
class AddedProvider:
    """A provider and what was said of its keys when it was added."""

    provider: Provider
    expires: float | None
    """When its keys are dropped, on the boot clock; None is never."""
    removed: set[bytes] = field(default_factory=set)
    """Blobs of single keys that were removed since."""

    def identities(self) -> Iterator[HeldKey]:
        """One for each key that was not removed, also for those of tokens that are out."""
        for token, key in self.provider.token_keys():
            if key.blob not in self.removed:
                yield HeldKey(key, token, key.label or self.provider.name)


class Identities:
    """All entries. `clock` is the boot clock, in seconds."""

    def __init__(self, clock: Callable[[], float] = boottime) -> None:
        self._clock = clock
        self._added: list[AddedProvider] = []

    def __iter__(self) -> Iterator[HeldKey]:
        """What is listed: each key once, unless all tokens that hold it are out."""
        seen: set[bytes] = set()
        for held in self._held():
            if held.token.state is not TokenState.ABSENT and held.key.blob not in seen:
                seen.add(held.key.blob)
                yield held

    def holding(self, blob: bytes) -> list[HeldKey]:
        """The identities with this public key blob, one for each token: the one nearest to signing first."""
        found = {held.token.identity: held for held in self._held() if held.key.blob == blob}
        return sorted(found.values(), key=_distance)

    def on(self, token: ServedToken) -> list[HeldKey]:
        """The identities that `token` holds, whether it is in or out."""
        return list({held.key.blob: held for held in self._held() if held.token is token}.values())

    def lifetime_left(self, token: ServedToken) -> float | None:
        """Seconds until nothing serves `token` and its PIN is forgotten; None if that is not planned."""
        times = [added.expires for added in self._added if added.provider.serves(token)]
        limited = [expires for expires in times if expires is not None]
        return max(limited) - self._clock() if limited and len(limited) == len(times) else None

    def _held(self) -> Iterator[HeldKey]:
        for added in self._added:
            yield from added.identities()

    def providers(self) -> list[Provider]:
        """The providers, in the order they were added."""
        return [added.provider for added in self._added]

    def add(self, provider: Provider, lifetime: int | None) -> None:
        """Add `provider`, for `lifetime` seconds if not None. One that is there already keeps its place."""
        entry = AddedProvider(provider, None if lifetime is None else self._clock() + lifetime)
        for place, added in enumerate(self._added):
            if _same(added.provider, provider):
                self._added[place] = entry
                return
        self._added.append(entry)

    def remove_provider(self, chosen: Callable[[Provider], bool]) -> bool:
        """Remove the providers that `chosen` says; whether there was one."""
        kept = [added for added in self._added if not chosen(added.provider)]
        found = len(kept) < len(self._added)
        self._added = kept
        return found

    def remove_key(self, blob: bytes) -> bool:
        """Remove one key wherever it is; whether it was there."""
        found = False
        for added in self._added:
            if any(held.key.blob == blob for held in added.identities()):
                added.removed.add(blob)
                found = True
        return found

    def clear(self) -> None:
        """Remove everything."""
        self._added.clear()

    def drop_expired(self) -> bool:
        """Remove what has outlived its lifetime; whether there was any."""
        now = self._clock()
        kept = [added for added in self._added if added.expires is None or now < added.expires]
        expired = len(kept) < len(self._added)
        self._added = kept
        return expired

    def next_expiry(self) -> float | None:
        """Seconds until the next entry expires; None if none will."""
        times = [added.expires for added in self._added if added.expires is not None]
        return max(0.0, min(times) - self._clock()) if times else None


def _distance(held: HeldKey) -> tuple[bool, bool, bool]:
    token = held.token
    return not token.present, token.state is not TokenState.READY, not token.pin_remembered


def _same(one: Provider, other: Provider) -> bool:
    return one.module is other.module and one.uri.same_choice(other.uri)
