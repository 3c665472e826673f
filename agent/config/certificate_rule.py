"""A `[[certificate]]` of the configuration file: what a CA key certifies, for logins at which hosts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from replug.agent.config.ca_entry import SSH_KEYGEN_EXTENSIONS

EPHEMERAL = "ephemeral"
"""In `key`: one that the agent makes for the rule."""
FIELDS = ("user", "machine")
"""What braces in `principals` and `key_id` may name: the name of the user who logs in and this machine's."""
GROUP = "@"
"""In `users`, what the name of a group begins with."""
MOST_RULES = 64
"""In one file: each has a key, and certificates, which all are listed."""
_SHARE = 5
_USUAL = 120  # seconds


@dataclass(frozen=True)
class CertificateRule:
    """One `[[certificate]]`. Times are in seconds."""

    ca: tuple[str, ...]
    """Fingerprints of CA keys: the first whose token is in signs."""
    hosts: tuple[str, ...]
    """Patterns for names, `!` before those that are left out, and fingerprints of host keys."""
    principals: tuple[str, ...]
    """Templates."""
    users: tuple[str, ...] = ()
    """Other users of the machine, by name or as @group: the guests it is for. Empty is the agent's user."""
    lifetime: int = 600
    key: tuple[str, ...] = (EPHEMERAL,)
    """`EPHEMERAL`, or the keys that may be certified (see `replug.agent.config.key_choice`)."""
    extensions: tuple[str, ...] = SSH_KEYGEN_EXTENSIONS
    force_command: str = ""
    source_address: str = ""
    key_id: str = "{user}@{machine}"
    """A template."""
    renew_before: int | None = None
    """None is a fifth of the lifetime, and two minutes at most."""
    certificate_file: str = ""
    """Where ssh finds the certificate; empty if it is in no file."""

    def __hash__(self) -> int:
        return self._hash  # it is what the certificates of a rule are found by, at every listing

    @cached_property
    def _hash(self) -> int:
        return hash((self.ca, self.hosts, self.principals, self.users, self.lifetime, self.key))

    @property
    def renewed_before(self) -> int:
        """How long before a certificate's end the next one is wanted."""
        return min(_USUAL, self.lifetime // _SHARE) if self.renew_before is None else self.renew_before
