"""No message holds up another client: its listing goes on, whatever is sent from however many connections."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attacks.largest import FLOODS, Flood
from bench.programs import Programs, build
from rigs.agent import LIST_REQUEST, StartAgent, frame
from rigs.home import Home
from rigs.terminal import eventually

_LONGEST = 20_000.0
"""Microseconds that a listing may take longer than an answer of an agent that does nothing."""
_TRIES = 10
"""An agent stalls each time; a machine that has something else to do does not."""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """The load, and the agent that does nothing."""
    return build(tmp_path_factory.mktemp("programs"))


@contextmanager
def flooding(socket: Path, flood: Flood, connections: int) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("flood.py"), socket, str(connections)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        frames = [[one.hex() for one in some] for some in (flood.first, flood.again)]
        process.stdin.write(json.dumps(frames) + "\n")
        process.stdin.flush()
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("connections", [1, 20])
@pytest.mark.parametrize("name", FLOODS)
def test_a_listing_goes_on(
    name: str, connections: int, start_agent: StartAgent, home: Home, programs: Programs
) -> None:
    agent, idle = start_agent(), home.folder / "idle.sock"
    waits = []
    with (
        programs.trivial_agent(idle, frame(b"\x0c" + bytes(4))),
        flooding(agent.socket, FLOODS[name], connections),
    ):
        for _ in range(_TRIES):
            listed, answered = (
                programs.load(socket, LIST_REQUEST, seconds=0.4, rest=0.0005)
                for socket in (agent.socket, idle)
            )
            assert listed.failures == 0
            waits.append((round(listed.p999), round(answered.p999)))
            if listed.p999 - answered.p999 <= _LONGEST:
                break
    with agent.connect() as connection:  # and it is served as before
        eventually(lambda: connection.ask(LIST_REQUEST)[:1] == b"\x0c", "a listing")
    assert min(ours - echo for ours, echo in waits) <= _LONGEST, waits
