"""What one client has to do with other agents: its session-binds, its connections, and what it was listed."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence

from replug.agent.clients.client import Client
from replug.agent.upstreams.key_list import KeyList
from replug.agent.upstreams.link import Link
from replug.agent.upstreams.unknown_host import bind_of_unknown_host
from replug.agent.upstreams.upstream import Upstream
from replug.protocol.constants import MAX_BINDINGS

_MOST_BYTES = 64 * 1024  # of session-binds


class ClientLinks:
    """From the client's first session-bind, or first question to another agent, to its end."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.is_complete = not client.sessions.bind_attempted
        """Whether all its session-binds are known: without them no other agent is asked for it."""
        # Whatever a client of a [[socket]] binds to, it counts as forwarded.
        self._binds = [] if client.view is None else [bind_of_unknown_host()]
        self._links: dict[Upstream, Link] = {}
        self._listed: dict[Upstream, weakref.ref[KeyList]] = {}
        """Their owner keeps the lists: a program with many connections would fill the memory."""

    def bind(self, message: bytes) -> None:
        """The client has sent this session-bind, valid or not."""
        size = sum(map(len, self._binds)) + len(message)
        if len(self._binds) >= MAX_BINDINGS or size > _MOST_BYTES:
            self.is_complete = False
            self.close()
        if self.is_complete:
            self._binds.append(message)

    def to(self, upstream: Upstream) -> Link:
        """The connection to another agent."""
        if upstream not in self._links:
            self._links[upstream] = upstream.link(self._binds)
        return self._links[upstream]

    def listed(self, lists: Mapping[Upstream, KeyList | None]) -> None:
        """Note what the client was listed; None is nothing."""
        self._listed = {one: weakref.ref(keys) for one, keys in lists.items() if keys is not None}

    def lists(self, upstreams: Sequence[Upstream]) -> list[tuple[Upstream, KeyList]]:
        """What it was listed, in the order of the agents."""
        found = [(one, self._listed[one]()) for one in upstreams if one in self._listed]
        return [(one, keys) for one, keys in found if keys is not None]

    def forget(self, upstream: Upstream) -> None:
        """Close the connection to it."""
        self._listed.pop(upstream, None)
        link = self._links.pop(upstream, None)
        if link is not None:
            link.close()

    def close(self) -> None:
        """Close all connections."""
        for upstream in list(self._links):
            self.forget(upstream)
