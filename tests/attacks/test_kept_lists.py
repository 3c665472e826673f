"""Connections that each see other keys than all others: the agent keeps no list for any of them."""

from __future__ import annotations

from contextlib import ExitStack

from attacks.largest import bind, blob, destination, destinations, key_message
from cryptography.hazmat.primitives.asymmetric import ed25519
from rigs.agent import LIST_REQUEST, Agent, Connection, StartAgent, string
from rigs.doctor import REPLUG
from rigs.home import Home

SUCCESS = b"\x06"
_SESSION = bytes(range(32))
_CLIENTS = 120
_TELLING = 7
"""Keys by which the lists differ: each is for the hosts whose number has one bit."""
_LARGE = 200
"""Other keys, of which each takes a kilobyte of every list."""


def _host(number: int) -> tuple[bytes, bytes]:
    """A host key, and its proof of the session."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([number, *range(2, 33)]))
    public = string(b"ssh-ed25519") + string(key.public_key().public_bytes_raw())
    return public, string(b"ssh-ed25519") + string(key.sign(_SESSION))


def _memory(agent: Agent) -> int:
    """Bytes that are the agent's own, without what it shares with its parent."""
    with open(f"/proc/{agent.pid}/smaps_rollup", encoding="ascii") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Private_Dirty:"))


def test_lists_of_bound_connections_do_not_fill_the_memory(agent: Agent) -> None:
    hosts = [_host(number) for number in range(1, _CLIENTS + 1)]
    with agent.connect() as connection:
        for number in range(_LARGE):
            assert connection.ask(key_message(b"", b"c" * 1000, number)) == SUCCESS, agent.log
        for bit in range(_TELLING):
            there = [key for number, (key, _) in enumerate(hosts, 1) if number >> bit & 1]
            only = destinations([destination(b"", b"h", [key]) for key in there])
            assert connection.ask(key_message(only, b"", _LARGE + bit)) == SUCCESS, agent.log
    lists = set()
    with ExitStack() as stack:
        before = None
        for key, proof in hosts:
            client = stack.enter_context(agent.connect())
            assert client.ask(bind(key, proof)) == SUCCESS, agent.log
            lists.add(client.ask(LIST_REQUEST))
            if (
                len(lists) == _CLIENTS // 4
            ):  # what the agent keeps for all, and what Python keeps, is there by now
                before = _memory(agent)
        assert before is not None
        grown = _memory(agent) - before
    assert len(lists) == _CLIENTS
    assert all(blob(0) in one and len(one) > _LARGE * 1000 for one in lists)
    assert grown < 4 * 1024 * 1024, grown  # their lists together have four times as much


def test_nor_do_those_of_connections_from_before_a_reload(home: Home, start_agent: StartAgent) -> None:
    view = home.folder / "run/views/all"
    home.configure(f"modules = []\n[[socket]]\npath = '{view}'\nkeys = '*'\n")
    agent = start_agent()
    key, proof = _host(1)
    with ExitStack() as stack:
        connection = stack.enter_context(agent.connect())
        for number in range(_LARGE):
            assert connection.ask(key_message(b"", b"c" * 1000, number)) == SUCCESS, agent.log
        before = 0
        for number in range(20):
            assert agent.run(REPLUG, "reload").status == 0
            login = stack.enter_context(agent.connect())
            assert login.ask(bind(key, proof)) == SUCCESS, agent.log
            for one in (login, stack.enter_context(Connection(view, 30))):
                assert len(one.ask(LIST_REQUEST)) > _LARGE * 1000
            if number == 4:
                before = _memory(agent)
        grown = _memory(agent) - before
    assert grown < 3 * 1024 * 1024, grown  # their lists together have twice as much
