"""What there is of one `[[certificate]]`, for one user: key and certificates, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from replug.agent.config.certificate_rule import CertificateRule
from replug.agent.keys.identity import Identity, SoftwareIdentity
from replug.agent.keys.issued import IssuedIdentity
from replug.token.requester import Guest
from replug.token.serving.shared import SharedAttempt

_MOST_REPLACED = 64
"""Certificates: a rule that wants a new one at every listing is not to fill the memory."""


@dataclass(frozen=True)
class Missing:
    """Why the last attempt made no certificate."""

    when: float
    """Seconds since 1970."""
    reason: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Shown:
    """What is listed of a rule before all other keys. Times are in seconds since 1970."""

    issued: IssuedIdentity
    identities: tuple[Identity, ...]
    begins: int
    ends: int
    due: int
    """When the next certificate is wanted."""
    on_token: bool
    """Whether its key is on a token, which may be out."""


@dataclass(eq=False)
class RuleState:
    """Of one rule and one user. Times are in seconds since 1970."""

    rule: CertificateRule
    guest: Guest | None
    """The other user whom it is for."""
    can_sign: Callable[[IssuedIdentity], bool]
    """Whether the token with the key of a certificate is in."""
    attempt: SharedAttempt = field(default_factory=SharedAttempt)
    """The one under way, for all clients that wait for it."""
    key: SoftwareIdentity | None = None
    """The key that was made for the rule."""
    issued: list[IssuedIdentity] = field(default_factory=list)
    """The newest last; those before it are not listed any more."""
    missing: Missing | None = None
    held_back_until: float = 0.0
    """By the boot clock: until then nobody is asked."""
    _newest: Shown | None = None

    @property
    def newest(self) -> IssuedIdentity | None:
        """The certificate that was made last."""
        return self._newest.issued if self._newest is not None else None

    def shown(self, now: float) -> Shown | None:
        """The newest certificate, if it is valid and its key can sign."""
        newest = self._newest
        if newest is None or not newest.begins <= now < newest.ends:
            return None
        return None if newest.on_token and not self.can_sign(newest.issued) else newest

    def is_due(self, now: float) -> bool:
        """Whether a certificate is wanted now."""
        shown = self.shown(now)
        return shown is None or shown.due <= now

    @property
    def plain(self) -> tuple[SoftwareIdentity, ...]:
        """The key itself where it can be of use: for an ssh that has its certificate from a file."""
        return (self.key,) if self.key is not None and self.rule.certificate_file else ()

    def take(self, issued: IssuedIdentity, now: float) -> None:
        """List this one from now on; those that it replaces can be used to their end."""
        valid = [before for before in self.issued if before.is_valid(now)]
        self.issued = [*valid[-_MOST_REPLACED:], issued]
        self.missing = None
        begins, ends = issued.certificate.valid_after, issued.certificate.valid_before
        due = ends - self.rule.renewed_before
        listed = (issued, *self.plain)
        self._newest = Shown(issued, listed, begins, ends, due, on_token=issued.holder is not None)

    def is_over(self, now: float) -> bool:
        """Whether nothing of it is of use any more."""
        return self.attempt.idle and not any(issued.is_valid(now) for issued in self.issued)

    def drop(self) -> None:
        """Have no certificates."""
        self.issued, self._newest = [], None
