"""The constraints a key was added with: its lifetime, confirmation of each use, and destinations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from replug.agent.config.certificate_rule import CertificateRule
from replug.agent.config.confirm_when import ConfirmWhen
from replug.protocol.constraints import (
    Confirm,
    Constraint,
    DestinationConstraint,
    Lifetime,
    RestrictDestination,
)
from replug.token.requester import Guest


@dataclass(frozen=True)
class KeyConstraints:
    """The constraints of RFC 9987 section 5.2.7 and OpenSSH's destinations, in a form to check against."""

    expires: float | None = None
    """When the identity is dropped, in seconds of the boot clock; None is never."""
    confirm: ConfirmWhen = ConfirmWhen.NEVER
    """When the user is asked before a signature."""
    destinations: tuple[DestinationConstraint, ...] = ()
    """Where it may be used; empty is anywhere."""
    here_only: bool = False
    """Whether it does not exist for clients on other hosts."""
    guest: Guest | None = None
    """The other user that it is for, and who sees nothing else; None is the agent's own user, and root."""
    rule: CertificateRule | None = None
    """What it was made by for a guest: it is theirs as long as that names them."""

    @classmethod
    def of(cls, constraints: Iterable[Constraint], *, default_lifetime: int, now: float) -> KeyConstraints:
        """Combine `constraints`; without a lifetime, `default_lifetime` holds (in seconds; 0 is no end)."""
        expires = now + default_lifetime if default_lifetime else None
        confirm = ConfirmWhen.NEVER
        destinations: tuple[DestinationConstraint, ...] = ()
        for constraint in constraints:
            match constraint:
                case Lifetime(seconds):
                    expires = now + seconds
                case Confirm():
                    confirm = ConfirmWhen.EACH_TIME
                case RestrictDestination(hops):
                    destinations = hops
        return cls(expires, confirm, destinations)
