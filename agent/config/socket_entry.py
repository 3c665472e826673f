"""A `[[socket]]` of the configuration file: a second socket, at which some keys can be used and no more."""

from __future__ import annotations

from dataclasses import dataclass

from replug.agent.config.confirm_when import ConfirmWhen

MOST_SOCKETS = 64
"""In one file: each is a file and a list of keys."""
LONGEST_PATH = 107
"""Bytes: sockaddr_un's sun_path has one more, for a NUL."""


@dataclass(frozen=True)
class SocketEntry:
    """One `[[socket]]`."""

    path: str
    """Absolute."""
    keys: tuple[str, ...]
    """What is listed and signs there (see `replug.agent.config.key_match`)."""
    confirm: ConfirmWhen = ConfirmWhen.NEVER
    """When the user is asked before a signature, besides what the key itself wants."""
    hosts: tuple[str, ...] = ()
    """Where its clients may log in (see `replug.agent.config.host_match`); empty is anywhere."""
