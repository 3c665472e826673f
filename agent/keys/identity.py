"""Identities: a key or certificate in the listing, with a private key in the agent or on a token."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property, partial

from replug.agent.config.confirm_when import ConfirmWhen
from replug.agent.config.key_match import rules_of
from replug.agent.config.model import Config
from replug.agent.desktop.touch_notice import TouchNotices
from replug.agent.keys.constraints import KeyConstraints
from replug.agent.keys.security_keys import SecurityKeys
from replug.agent.keys.software import SoftwareKeys
from replug.protocol.keys import SkPublicKey, blob_algorithm, fingerprint, is_certificate, plain_algorithm
from replug.protocol.messages import ListedIdentity
from replug.protocol.visible_text import visible_path
from replug.token.identity import TokenId
from replug.token.keys import TokenKey
from replug.token.prompts.request import Asker
from replug.token.serving.presence import TokenState
from replug.token.serving.served import ServedToken

LONGEST_COMMENT = 1024
"""Bytes in a list; the rest is left out."""


@dataclass(frozen=True)
class Identity:
    """What all identities have in common."""

    blob: bytes
    """The public key or certificate it is listed as."""
    comment: bytes
    constraints: KeyConstraints

    @cached_property
    def listed(self) -> ListedIdentity:
        """How clients see it."""
        comment = self.comment
        if len(comment) > LONGEST_COMMENT:
            comment = comment[:LONGEST_COMMENT].decode(errors="ignore").encode()
        return ListedIdentity(self.blob, comment)

    @cached_property
    def fingerprint(self) -> str:
        """The key's fingerprint as `ssh-add -l` shows it."""
        return fingerprint(self.blob)

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
    def holder(self) -> TokenId | None:
        """The token that has the private key; None if the agent has it."""

    @cached_property
    def place(self) -> str:
        """Where the private key is, for display."""
        return str(self.holder) if self.holder else "memory"

    @property
    @abstractmethod
    def distance(self) -> tuple[bool, bool, bool]:
        """The obstacles to a signature, as a sort key: the identity with the least is used first."""

    @abstractmethod
    async def sign(self, data: bytes, flags: int, asker: Asker, notices: TouchNotices) -> bytes:
        """The signature blob. Raises TokenError, RequestRefusedError, ProtocolError."""


@dataclass(frozen=True)
class AddedIdentity(Identity):
    """A key that a client gave the agent."""

    @property
    def holder(self) -> None:
        return None

    @property
    def distance(self) -> tuple[bool, bool, bool]:
        return False, False, False


@dataclass(frozen=True)
class SoftwareIdentity(AddedIdentity):
    """One with its private key."""

    keys: SoftwareKeys

    async def sign(self, data: bytes, flags: int, asker: Asker, notices: TouchNotices) -> bytes:
        return await self.keys.sign(self.blob, data, flags)


@dataclass(frozen=True)
class SecurityKeyIdentity(AddedIdentity):
    """One whose private key is in a FIDO authenticator."""

    keys: SecurityKeys
    public: SkPublicKey
    provider: str
    """The library that speaks to the authenticator."""

    @cached_property
    def place(self) -> str:
        return f"security key ({visible_path(self.provider)})"

    async def sign(self, data: bytes, flags: int, asker: Asker, notices: TouchNotices) -> bytes:
        comment = self.comment.decode(errors="replace")
        touching = partial(notices.touch_security_key, comment, asker)
        return await self.keys.sign(self.blob, data, comment, asker, touching)


@dataclass(frozen=True)
class TokenBackedIdentity(Identity):
    """A key on a token; `blob` is `key`'s, or that of a certificate for it."""

    key: TokenKey
    token: ServedToken

    @cached_property
    def holder(self) -> TokenId:
        return self.token.identity

    @property
    def distance(self) -> tuple[bool, bool, bool]:
        token = self.token
        return not token.present, token.state is not TokenState.READY, not token.pin_remembered

    async def sign(self, data: bytes, flags: int, asker: Asker, notices: TouchNotices) -> bytes:
        comment = self.comment.decode(errors="replace")
        waiting = partial(notices.waiting, self.place, comment, asker)
        return await self.token.sign(self.key, data, flags, asker, waiting, comment=comment)


def confirm_when(held: Identity, config: Config) -> ConfirmWhen:
    """When the user is asked before `held` signs; a token's keys have its settings in their constraints."""
    when = held.constraints.confirm | (config.confirm if held.holder is None else ConfirmWhen.NEVER)
    for rule in rules_of(config.key_rules, held.blob, held.comment):
        when |= rule.confirm
    return when
