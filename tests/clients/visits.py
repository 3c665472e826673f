"""Each client visits a host with each key, once by replug and once by OpenSSH's agent.

`make clients` runs it and makes a table of it (`docs/clients.md`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from clients.all_clients import CLIENTS
from clients.client import Client
from clients.seen import visit
from clients.user import FIDO, FILE, FORWARDED, OTHER, RESTRICTED, TOKEN, UNKNOWN_TO_OPENSSH, Key, User, Visit
from rigs.agent import OPENSSH
from rigs.home import Home
from rigs.relay import Relay

Record = Callable[[str, object], None]


@dataclass(frozen=True)
class Place:
    """Where the visits begin."""

    user: User
    agents: dict[str, tuple[Relay, Relay]]
    """By the key's place: replug, and OpenSSH's agent."""
    port: int

    def visits(self, key: Key) -> Iterator[Visit]:
        """With this key: by replug, then by OpenSSH's agent."""
        for agent in self.agents[key.place]:
            yield Visit(self.user, agent, self.port, key)


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    replug = request.config.getoption("--agent")
    with ExitStack() as stack:
        home = Home()
        stack.callback(home.remove)
        user = User(home)

        def both(*places: str) -> tuple[Relay, Relay]:
            ours, theirs = (stack.enter_context(user.agent(each, *places)) for each in (replug, OPENSSH))
            return ours, theirs

        # FIDO keys are the last, as not every client gets past them, nor past a key that it may not use.
        everyday = both(FILE, TOKEN, FIDO)
        other = stack.enter_context(user.agent(OPENSSH, OTHER))
        ours = stack.enter_context(user.agent(replug, behind=other.path))
        agents = {
            **dict.fromkeys((FILE, TOKEN, FIDO, FORWARDED), everyday),
            RESTRICTED: both(RESTRICTED),
            OTHER: (ours, other),
        }
        yield Place(user, agents, stack.enter_context(user.server.listening()))


@pytest.fixture(scope="module")
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Client:
    client = CLIENTS[request.param]
    client.prepare(tmp_path_factory.mktemp("client"))
    return client


def test_visit(client: Client, key: Key, place: Place, record_property: Record) -> None:
    by_ours, by_theirs = place.visits(key)
    seen, complaint = visit(client, by_ours)

    why_not = client.cannot.get(key.place)
    assert seen.brought == (why_not is None), (complaint, seen)
    if key != UNKNOWN_TO_OPENSSH:
        theirs, their_complaint = visit(client, by_theirs)
        assert seen == theirs, (complaint, their_complaint)
    for name, value in (("place", key.place), ("kind", key.kind), ("why_not", why_not), ("said", seen.said)):
        record_property(name, value)
    record_property("in_flight", seen.in_flight)
