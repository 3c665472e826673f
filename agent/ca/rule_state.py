"""What there is of one `[[certificate]]`: the key, the certificates, and why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from replug.agent.config.certificate_rule import CertificateRule
from replug.agent.keys.identity import Identity, SoftwareIdentity
from replug.agent.keys.issued import IssuedIdentity
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


@dataclass
class RuleState:
    """Of one rule. Times are in seconds since 1970."""

    rule: CertificateRule
    can_sign: Callable[[IssuedIdentity], bool]
    """Whether the key of a certificate is there."""
    attempt: SharedAttempt = field(default_factory=SharedAttempt)
    """The one under way, for all clients that wait for it."""
    key: SoftwareIdentity | None = None
    """The key that was made for the rule."""
    issued: list[IssuedIdentity] = field(default_factory=list)
    """The newest last; those before it are not listed any more."""
    missing: Missing | None = None
    held_back_until: float = 0.0
    """By the boot clock: until then nobody is asked."""

    def current(self, now: float) -> IssuedIdentity | None:
        """The certificate to list: the newest, if it is valid and its key can sign."""
        if not self.issued:
            return None
        newest = self.issued[-1]
        return newest if newest.is_valid(now) and self.can_sign(newest) else None

    @property
    def plain(self) -> tuple[SoftwareIdentity, ...]:
        """The key itself where it can be of use: for an ssh that has its certificate from a file."""
        return (self.key,) if self.key is not None and self.rule.certificate_file else ()

    def listed(self, now: float) -> tuple[Identity, ...]:
        """What is listed before all other keys."""
        current = self.current(now)
        return () if current is None else (current, *self.plain)

    def ends(self, now: float) -> float | None:
        """When the certificate that is listed ends; None if there is none."""
        current = self.current(now)
        return None if current is None else current.certificate.valid_before

    def due(self, now: float) -> float:
        """When the next certificate is wanted: at once if that is over."""
        current = self.current(now)
        return 0.0 if current is None else current.certificate.valid_before - self.rule.renewed_before

    def is_due(self, now: float) -> bool:
        """Whether a certificate is wanted now."""
        return self.due(now) <= now

    def take(self, issued: IssuedIdentity, now: float) -> None:
        """List this one from now on; those that it replaces can be used to their end."""
        valid = [before for before in self.issued if before.is_valid(now)]
        self.issued = [*valid[-_MOST_REPLACED:], issued]
        self.missing = None
