"""A `[[key]]` of the configuration file: what certain keys are for, wherever they are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from replug.agent.config.confirm_when import ConfirmWhen

MOST_RULES = 64
"""In one file: each is compared with each key."""


class Fit(IntEnum):
    """How a rule fits a login; keys are listed in this order."""

    REPOSITORY = 0
    """It names the repository that git wants, and the host if it has `hosts`."""
    HOST = 1
    """It names the host."""
    OPEN = 2
    """It says nothing of where its keys are listed, or the host has no name, or git cannot be asked."""
    ELSEWHERE = 3
    """Its keys are for other hosts or repositories."""


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
