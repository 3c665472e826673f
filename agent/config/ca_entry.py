"""`[[ca]]`: the keys that sign certificates only, and which certificates those may be."""

from __future__ import annotations

from dataclasses import dataclass

SSH_KEYGEN_EXTENSIONS = (
    "permit-X11-forwarding",
    "permit-agent-forwarding",
    "permit-port-forwarding",
    "permit-pty",
    "permit-user-rc",
)
"""What ssh-keygen puts into a user certificate unless it is told otherwise (PROTOCOL.certkeys)."""
CRITICAL_OPTIONS = ("force-command", "source-address", "verify-required")
"""Those of user certificates that sshd knows; host certificates have none."""
TYPES = ("user", "host")
ANY_NAME = "*"
USER = "{user}"
"""In a principal, the name of the user who asks."""


@dataclass(frozen=True)
class CaEntry:
    """One `[[ca]]`: what its key may certify; it signs nothing else."""

    key: str
    """The fingerprint of the CA key, as `ssh-add -l` shows it."""
    max_validity: int
    """Seconds from the request to the end of a certificate."""
    principals: tuple[str, ...]
    """The names that a certificate may be for; `ANY_NAME` is every name, and still not none."""
    types: tuple[str, ...] = ("user",)
    extensions: tuple[str, ...] = SSH_KEYGEN_EXTENSIONS
    """The extensions that a user certificate may have."""
    required_options: tuple[str, ...] = ()
    """The critical options that a user certificate must have."""
    confirm: bool = False
    """Whether the user has to confirm each certificate."""
