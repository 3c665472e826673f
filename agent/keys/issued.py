"""Certificates that the agent has had made: in the list and for signatures beside what it was given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from replug.agent.desktop.touch_notice import TouchNotices
from replug.agent.keys.identity import Identity
from replug.protocol.certificates import Certificate
from replug.token.identity import TokenId
from replug.token.prompts.request import Asker


@dataclass(frozen=True)
class IssuedIdentity(Identity):
    """A certificate for the key of `certified`, which signs."""

    certified: Identity
    certificate: Certificate
    authority: str
    """Where the CA key is that signed it, for display."""

    @property
    def holder(self) -> TokenId | None:
        return self.certified.holder

    @property
    def distance(self) -> tuple[bool, bool, bool]:
        return self.certified.distance

    async def sign(self, data: bytes, flags: int, asker: Asker, notices: TouchNotices) -> bytes:
        return await self.certified.sign(data, flags, asker, notices)

    def is_valid(self, now: float) -> bool:
        """Whether it is good for a login; `now` is in seconds since 1970."""
        return self.certificate.valid_after <= now < self.certificate.valid_before

    def by(self, held: Identity) -> IssuedIdentity:
        """The same, with what is known of its key now."""
        return replace(self, certified=held, constraints=replace(held.constraints, here_only=True))


class IssuedIdentities:
    """All that can be used, by blob: also certificates that were replaced by newer ones.

    A client may have been listed one that is replaced before it asks for the signature.
    """

    def __init__(self) -> None:
        self._by_blob: dict[bytes, Identity] = {}

    def replace(self, identities: Iterable[Identity]) -> None:
        """From now on it is these."""
        self._by_blob = {held.blob: held for held in identities}

    def of(self, blob: bytes, now: float) -> Identity | None:
        """The identity with this blob, if there is one and it is valid; `now` is in seconds since 1970."""
        held = self._by_blob.get(blob)
        return None if isinstance(held, IssuedIdentity) and not held.is_valid(now) else held
