"""A further socket of the agent, as its clients are treated: what they see, and where they may log in."""

from __future__ import annotations

from dataclasses import dataclass

from replug.agent.config.host_match import names_host
from replug.agent.config.key_match import fits
from replug.agent.config.socket_entry import SocketEntry
from replug.protocol.purpose import Host


@dataclass(eq=False)
class View:
    """The socket of a `[[socket]]`; another configuration may give it another entry, or end it."""

    entry: SocketEntry

    @property
    def path(self) -> str:
        """Its name, too."""
        return self.entry.path

    def shows(self, key_blob: bytes, comment: bytes) -> bool:
        """Whether this key is one of those that can be used there."""
        return fits(self.entry.keys, key_blob, comment)

    def is_open_for(self, logs_in_at: Host | None) -> bool:
        """Whether keys can be used by a client that logs in at this host; None if that is not known."""
        hosts = self.entry.hosts
        return not hosts or (logs_in_at is not None and names_host(hosts, logs_in_at))
