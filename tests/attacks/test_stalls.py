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
from attacks.waits import longest_listing
from rigs.agent import LIST_REQUEST, StartAgent
from rigs.terminal import eventually

_LONGEST = 0.02
"""Seconds that a listing may take."""
_TRIES = 10
"""An agent stalls each time; a machine that has something else to do does not."""


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
        frames = [[one.hex() for one in some] for some in (flood.first, flood.again, flood.poured)]
        process.stdin.write(json.dumps(frames) + "\n")
        process.stdin.flush()
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("connections", [1, 20])
@pytest.mark.parametrize("name", FLOODS)
def test_a_listing_goes_on(name: str, connections: int, start_agent: StartAgent) -> None:
    agent = start_agent()
    waits = []
    with flooding(agent.socket, FLOODS[name], connections):
        for _ in range(_TRIES):
            waits.append(longest_listing(agent, seconds=0.4))
            if waits[-1] <= _LONGEST:
                break
    with agent.connect() as connection:  # and it is served as before
        eventually(lambda: connection.ask(LIST_REQUEST)[:1] == b"\x0c", "a listing")
    assert min(waits) <= _LONGEST, waits
