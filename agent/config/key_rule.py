"""A `[[key]]` of the configuration file: what certain keys are for, wherever they are."""

from __future__ import annotations

from dataclasses import dataclass

from replug.agent.config.confirm_when import ConfirmWhen

MOST_RULES = 64
"""In one file: each is compared with each key."""


@dataclass(frozen=True)
class KeyRule:
    """One `[[key]]`. Times are in seconds."""

    match: tuple[str, ...]
    """The keys, by comment and fingerprint (see `replug.agent.config.key_match`)."""
    hosts: tuple[str, ...] = ()
    """Where they are offered first (see `replug.agent.config.host_match`); empty is everywhere."""
    repositories: tuple[str, ...] = ()
    """For which git repositories; empty is for all, and for what is not git."""
    restrict: bool = False
    """Whether they sign logins at `hosts` and nothing else."""
    confirm: ConfirmWhen = ConfirmWhen.NEVER
    """When the user is asked, besides what other settings say."""
    confirm_for: int | None = None
    """How long a yes is remembered; None is what the rest of the file says."""

    @property
    def chooses(self) -> bool:
        """Whether it says where the keys are offered."""
        return bool(self.hosts or self.repositories)
