"""An agent that a program has filled with as much as it takes: listings and signatures go on for others."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from attacks.largest import Flood, destination, destinations, key_message
from attacks.test_stalls import flooding
from attacks.waits import Waits
from cryptography.hazmat.primitives.asymmetric import ed25519
from rigs.agent import FAILURE, LIST_REQUEST, Agent, frame, string

SUCCESS = b"\x06"
_LONGEST = 0.02
"""Seconds that a listing may take."""
_MANY = 200
_LISTINGS = 1000
_TOO_LONG = 1
"""Of so many: p99.9."""
_TRIES = 3
"""An agent stalls each time; a machine that has something else to do does not."""


def _plain(number: int) -> bytes:
    """To add a key of which there is one for each number."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))
    point = key.public_key().public_bytes_raw()
    return frame(
        b"\x11"
        + string(b"ssh-ed25519")
        + string(point)
        + string(key.private_bytes_raw() + point)
        + string(b"c")
    )


def _fill(agent: Agent, requests: Iterator[bytes]) -> int:
    """Send these until one is refused; how many were not."""
    with agent.connect() as connection:
        for count, request in enumerate(requests):
            reply = connection.ask(request)
            if reply == FAILURE:
                return count
            assert reply == SUCCESS
    return _MANY


def _listings(agent: Agent) -> list[float]:
    """How long they take, the longest first."""
    times = []
    with agent.connect() as connection:
        waits = Waits(agent)
        for _ in range(_LISTINGS):
            waits.begin()
            assert connection.ask(LIST_REQUEST)[:1] == b"\x0c"
            times.append(waits.end())
            time.sleep(0.001)  # not to measure the attack of a busy client
    return sorted(times, reverse=True)


def _check(agent: Agent) -> None:
    for _ in range(_TRIES):
        times = _listings(agent)
        if times[_TOO_LONG] <= _LONGEST:
            return
    pytest.fail(f"the longest are {times[:10]}")


def test_destinations_with_many_host_keys(agent: Agent) -> None:
    """Each is several objects, and while the garbage collector goes through all there are everybody waits."""
    large = destinations([destination(b"", b"h", [b"%d" % number for number in range(2000)])])
    added = _fill(agent, (key_message(large, number=number) for number in range(_MANY)))
    assert added > 1, agent.log
    again = Flood((), tuple(key_message(large, b"again", number) for number in range(added)))
    with flooding(agent, [again], 1):
        _check(agent)


@contextmanager
def _asking(agent: Agent) -> Iterator[None]:
    """Another process asks for the status again and again."""
    script = (
        "import socket, sys\n"
        "while True:\n"
        "    control = socket.socket(socket.AF_UNIX)\n"
        "    control.connect(sys.argv[1])\n"
        "    control.sendall(b'status\\n')\n"
        "    size = 0\n"
        "    while piece := control.recv(65536): size += len(piece)\n"
        "    print(size, flush=True)\n"
    )
    command = [sys.executable, "-I", "-c", script, agent.control]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert int(process.stdout.readline()) > 100_000
        try:
            yield
        finally:
            process.kill()


def test_the_status_of_many_keys(agent: Agent) -> None:
    added = _fill(agent, (_plain(number) for number in range(1, 3000)))
    assert added == 2048
    with _asking(agent):
        _check(agent)
