"""The identities the agent holds, in the order they were added: software keys, and what providers have.

A provider that was added is one entry; its keys are read from the tokens whenever they are needed, so that
those of a token that is out are not listed, and are again when it is back.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from replug.agent.terms import Terms
from replug.agent.vault import Vault
from replug.protocol.keys import blob_algorithm, is_certificate, plain_algorithm
from replug.token.boottime import boottime
from replug.token.identity import TokenIdentity
from replug.token.keys import TokenKey
from replug.token.prompt import Asker
from replug.token.provider import Provider
from replug.token.served import ServedToken, TokenState

CertificateFinder: TypeAlias = Callable[[bytes], tuple[bytes, ...]]
"""From a public key blob to the blobs of certificates for it."""


@dataclass(frozen=True)
class HeldKey:
    """An identity, and how to sign with it."""

    blob: bytes
    """The public key or certificate it is listed as."""
    comment: bytes
    terms: Terms

    @property
    def algorithm(self) -> str:
        """The name of the key's type, without regard to a certificate."""
        return plain_algorithm(blob_algorithm(self.blob))

    @property
    def is_certificate(self) -> bool:
        """Whether `blob` is a certificate."""
        return is_certificate(blob_algorithm(self.blob))

    @property
    @abstractmethod
    def holder(self) -> TokenIdentity | None:
        """The token that has the private key; None is the agent."""

    @property
    def place(self) -> str:
        """Where the private key is, for people."""
        return str(self.holder) if self.holder else "memory"

    @property
    @abstractmethod
    def distance(self) -> tuple[bool, bool, bool]:
        """How much stands between it and a signature; less is nearer."""

    @abstractmethod
    async def sign(self, data: bytes, flags: int, asker: Asker) -> bytes:
        """The signature blob. Raises TokenError, RequestRefusedError, ProtocolError."""


@dataclass(frozen=True)
class SoftwareKey(HeldKey):
    """A private key that a client gave the agent."""

    vault: Vault

    @property
    def holder(self) -> None:
        """The agent itself."""
        return None

    @property
    def distance(self) -> tuple[bool, bool, bool]:
        """None."""
        return False, False, False

    async def sign(self, data: bytes, flags: int, asker: Asker) -> bytes:
        """Sign at once."""
        return await self.vault.sign(self.blob, data, flags)


@dataclass(frozen=True)
class KeyOnToken(HeldKey):
    """A key on a token; `blob` is `key`'s, or that of a certificate for it."""

    key: TokenKey
    token: ServedToken

    @property
    def holder(self) -> TokenIdentity:
        """The token."""
        return self.token.identity

    @property
    def distance(self) -> tuple[bool, bool, bool]:
        """To a token that is out it is farthest."""
        token = self.token
        return not token.present, token.state is not TokenState.READY, not token.pin_remembered

    async def sign(self, data: bytes, flags: int, asker: Asker) -> bytes:
        """Have the token sign, which may take a PIN, a touch, and time."""
        return await self.token.sign(self.key, data, flags, asker)


@dataclass
class AddedProvider:
    """A provider and what was said of its keys when it was added."""

    provider: Provider
    terms: Terms
    certificates: CertificateFinder
    certificates_only: bool = False
    """Whether only certificates are listed, and not the keys they are for."""
    removed: set[bytes] = field(default_factory=set)
    """Blobs of single identities that were removed since."""

    def identities(self) -> Iterator[KeyOnToken]:
        """One for each that was not removed, also for those of tokens that are out."""
        for token, key in self.provider.token_keys():
            comment = (key.label or self.provider.name).encode()
            blobs = self.certificates(key.blob)
            if not self.certificates_only:
                blobs = (*blobs, key.blob)
            for blob in blobs:
                if blob not in self.removed:
                    yield KeyOnToken(blob, comment, self.terms, key, token)


class Identities:
    """All entries. `clock` is the boot clock, in seconds."""

    def __init__(self, clock: Callable[[], float] = boottime) -> None:
        self._clock = clock
        self._entries: list[SoftwareKey | AddedProvider] = []

    def now(self) -> float:
        """The time, as `Terms.expires` counts it."""
        return self._clock()

    def listed(self, visible: Callable[[Terms], bool] = lambda _: True) -> Iterator[HeldKey]:
        """What is listed of what is visible: each key once, unless all tokens that hold it are out."""
        seen: set[bytes] = set()
        for held in self._held():
            out = isinstance(held, KeyOnToken) and held.token.state is TokenState.ABSENT
            if not out and held.blob not in seen and visible(held.terms):
                seen.add(held.blob)
                yield held

    def holding(self, blob: bytes) -> list[HeldKey]:
        """The identities with this blob, those nearest to signing first.

        One key may be on several tokens; and one token's may have been added more than once, in other terms,
        of which the newest come first.
        """
        held_by: dict[TokenIdentity | None, list[HeldKey]] = {}
        for held in self._held():
            if held.blob == blob:
                held_by.setdefault(held.holder, []).insert(0, held)
        return sorted(itertools.chain(*held_by.values()), key=lambda held: held.distance)

    def on(self, token: ServedToken) -> list[KeyOnToken]:
        """The identities that `token` holds, whether it is in or out."""
        held = (held for held in self._held() if isinstance(held, KeyOnToken) and held.token is token)
        return list({one.blob: one for one in held}.values())

    def software_keys(self) -> list[SoftwareKey]:
        """The identities that are on no token."""
        return [entry for entry in self._entries if isinstance(entry, SoftwareKey)]

    def lifetime_left(self, token: ServedToken) -> float | None:
        """Seconds until nothing serves `token` and its PIN is forgotten; None if that is not planned."""
        times = [added.terms.expires for added in self._providers() if added.provider.serves(token)]
        limited = [expires for expires in times if expires is not None]
        return max(limited) - self._clock() if limited and len(limited) == len(times) else None

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

    def remove_provider(self, chosen: Callable[[Provider], bool]) -> bool:
        """Remove the providers that `chosen` says; whether there was one."""
        kept = [
            entry for entry in self._entries if isinstance(entry, SoftwareKey) or not chosen(entry.provider)
        ]
        found = len(kept) < len(self._entries)
        self._entries = kept
        return found

    def remove(self, held: HeldKey) -> None:
        """Remove one identity from its entry; a token's key is back when its provider is added again."""
        for entry in list(self._entries):
            if entry is held:
                self._entries.remove(entry)
            elif isinstance(entry, AddedProvider) and any(held == one for one in entry.identities()):
                entry.removed.add(held.blob)

    def clear(self) -> None:
        """Remove everything."""
        self._entries.clear()

    def drop_expired(self) -> bool:
        """Remove what has outlived its lifetime; whether there was any."""
        now = self._clock()
        kept = [entry for entry in self._entries if entry.terms.expires is None or now < entry.terms.expires]
        expired = len(kept) < len(self._entries)
        self._entries = kept
        return expired

    def next_expiry(self) -> float | None:
        """Seconds until the next entry expires; None if none will."""
        times = [entry.terms.expires for entry in self._entries if entry.terms.expires is not None]
        return max(0.0, min(times) - self._clock()) if times else None

    def _providers(self) -> Iterator[AddedProvider]:
        return (entry for entry in self._entries if isinstance(entry, AddedProvider))

    def _held(self) -> Iterator[HeldKey]:
        for entry in self._entries:
            if isinstance(entry, SoftwareKey):
                yield entry
            else:
                yield from entry.identities()


def _same(one: SoftwareKey | AddedProvider, other: SoftwareKey | AddedProvider) -> bool:
    if isinstance(one, SoftwareKey):
        return isinstance(other, SoftwareKey) and one.blob == other.blob
    if isinstance(other, SoftwareKey):
        return False
    return one.provider.module is other.provider.module and one.provider.uri.same_choice(other.provider.uri)
