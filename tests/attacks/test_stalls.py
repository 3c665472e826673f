"""No message holds up another client: its listing goes on, whatever is sent from however many connections.

Nor does its software key sign much more slowly than usual. Messages of one kind are sent together; if
there is a stall, each is then sent alone to name the one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import pytest
from attacks.largest import FLOODS, LOCK, Flood, blob, key_message
from attacks.waits import longest_listing, usual_signature
from rigs.agent import LIST_REQUEST, Agent, Connection, frame, sign_request, string
from rigs.home import Home

_LONGEST = 0.02
"""Seconds that a listing may take."""
_TRIES = 5
"""An agent stalls each time; a machine that has something else to do does not."""
_CONNECTIONS = 20
_OURS = 255
"""The number of the key that goes on signing."""
_REMOVE_ALL, SUCCESS = frame(b"\x13"), b"\x06"


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest) -> Iterator[Agent]:
    """One agent for all of these."""
    home = Home()
    agent = Agent(request.config.getoption("agent"), home)
    yield agent
    crashed = agent.process.poll()
    log = agent.log
    agent.stop()
    home.remove()
    assert crashed is None, log
    assert "Traceback" not in log, log


@pytest.fixture
def connection(shared: Agent) -> Iterator[Connection]:
    """A connection to it; the only key it has is ours."""
    with shared.connect() as connection:
        assert connection.ask(_REMOVE_ALL) == SUCCESS
        assert connection.ask(key_message(b"", number=_OURS)) == SUCCESS
        yield connection
        # And it is served as before.
        assert connection.ask(LIST_REQUEST)[:1] == b"\x0c"


@contextmanager
def flooding(agent: Agent, floods: Collection[Flood], connections: int) -> Iterator[subprocess.Popen[str]]:
    """Another process sends these; each of its connections has had a reply when this is entered."""
    process = subprocess.Popen(
        [sys.executable, "-I", Path(__file__).with_name("flood.py"), agent.socket, str(connections)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        frames = [[[one.hex() for one in some] for some in (f.first, f.again, f.poured)] for f in floods]
        process.stdin.write(json.dumps(frames) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "answered\n"
        yield process
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def longest(agent: Agent, floods: Collection[Flood]) -> float:
    """The longest wait for a listing meanwhile; if the first is too long, the shortest of a few of these."""
    waits = []
    with flooding(agent, floods, _CONNECTIONS) as process:
        for _ in range(_TRIES):
            waits.append(longest_listing(agent, until_line_of=process))
            if waits[-1] <= _LONGEST:
                break
    return min(waits)


def check_listings(agent: Agent, floods: Mapping[str, Flood]) -> None:
    wait = longest(agent, floods.values())
    alone = {} if wait <= _LONGEST else {name: longest(agent, [flood]) for name, flood in floods.items()}
    assert wait <= _LONGEST, (wait, sorted(alone.items(), key=lambda one: -one[1]))


@pytest.mark.parametrize("kind", [kind for kind in FLOODS if kind != "while it is locked"])
def test_listings_and_signatures_go_on(kind: str, shared: Agent, connection: Connection) -> None:
    floods = FLOODS[kind]
    for flood in floods.values():
        with shared.connect() as other:
            assert {other.ask(one) for one in flood.first} <= {SUCCESS}
    request = sign_request(blob(_OURS))
    usual = usual_signature(shared, request)

    check_listings(shared, floods)

    # One client sends each in turn, and pours what is to be poured on connections of their own.
    in_turn = Flood(
        tuple(chain.from_iterable(flood.first for flood in floods.values())),
        tuple(chain.from_iterable(flood.again for flood in floods.values())),
    )
    poured = [flood for flood in floods.values() if flood.poured]
    with flooding(shared, poured or [in_turn], max(1, len(poured))):
        during = usual_signature(shared, request)
    assert during < 2 * usual + _LONGEST, (usual, during)


def test_listings_go_on_while_it_is_locked(agent: Agent) -> None:
    with agent.connect() as connection:
        assert connection.ask(frame(LOCK + string(b"sesame"))) == SUCCESS
    check_listings(agent, FLOODS["while it is locked"])
