"""A module that the user has added and that means ill: other keys and the log do not suffer from it."""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from attacks.waits import Waits
from rigs.agent import LIST_REQUEST, Agent, StartAgent
from rigs.faulty import Faulty
from rigs.home import Home
from rigs.softhsm import MODULE, PIN, Token
from rigs.terminal import eventually

LIMIT = 0.05
"""Seconds that a listing may take; it took 1 to 3."""


@pytest.fixture(scope="module")
def served(request: pytest.FixtureRequest, faulty_built: Path) -> Iterator[tuple[Agent, Faulty]]:
    """An agent with the key `good`, and a module with an RSA key, which its objects can be copies of."""
    home = Home()
    faulty = Faulty(home, faulty_built)
    faulty.token.remove("faulty-p256")
    faulty.token.add("rsa2048", "faulty-p256")
    Token(home).add("ed25519", "good")
    agent = Agent(request.config.getoption("agent"), home, "-P", "*", env=faulty.env)
    assert agent.add_provider(MODULE, PIN).status == 0, agent.log
    yield agent, faulty
    status = agent.stop()
    home.remove()
    assert status == 2


@pytest.fixture
def agent(served: tuple[Agent, Faulty]) -> Agent:
    return served[0]


@pytest.fixture
def hostile(served: tuple[Agent, Faulty]) -> Iterator[Faulty]:
    """The module, which is added by the test; it has none of its habits yet."""
    agent, faulty = served
    yield faulty
    for name in ("objects", "label", "prints", "C_SignInit"):
        faulty.tell(name, None)
    assert agent.ssh_add("-e", faulty.module).status == 0


def longest_listing_while_it_is_added(agent: Agent, hostile: Faulty) -> float:
    """How long the slowest listing of another client took, until the keys are there and have signed."""
    longest, waits = 0.0, Waits(agent)
    with ThreadPoolExecutor() as other, agent.connect() as connection:
        adding = other.submit(agent.add_provider, hostile.module, PIN)
        while not adding.done():
            waits.begin()
            reply = connection.ask(LIST_REQUEST)
            longest = max(longest, waits.end())
            assert reply[:1] == b"\x0c"
            time.sleep(0.001)  # not to measure the attack of a busy client
        assert adding.result().status == 0, (adding.result(), agent.log)
    print(f"slowest listing: {longest * 1000:.1f} ms")
    return longest


def listed(agent: Agent) -> list[str]:
    """The comments that `ssh-add -l` shows."""
    done = agent.ssh_add("-l")
    assert done.status == 0, done
    return [line.split(" ", 2)[2].rpartition(" ")[0] for line in done.out.splitlines()]


@pytest.mark.parametrize("objects", [3000, 100_000])  # the first is what 4 MiB of answers have room for
def test_very_many_objects(agent: Agent, hostile: Faulty, objects: int) -> None:
    hostile.tell("objects", str(objects))

    assert longest_listing_while_it_is_added(agent, hostile) < LIMIT

    comments = listed(agent)
    assert comments[0] == "good"
    assert len(comments) == 1 + 512
    assert "only the first keys are served" in agent.log
    assert agent.ssh_add("-T", agent.home.folder / "good.pub").status == 0, agent.log


def test_a_huge_label(agent: Agent, hostile: Faulty) -> None:
    hostile.tell("label", b"l" * 300 * 1024)

    assert longest_listing_while_it_is_added(agent, hostile) < LIMIT

    assert listed(agent) == ["good", "l" * 256]
    assert agent.ssh_add("-T", hostile.public).status == 0, agent.log


def test_many_keys_with_long_labels(agent: Agent, hostile: Faulty) -> None:
    """Four bytes for each character, so that the list would be longer than clients accept."""
    hostile.tell("objects", "3000")
    hostile.tell("label", "\N{HEAVY LARGE CIRCLE}\U0001f511" * 1000)

    assert longest_listing_while_it_is_added(agent, hostile) < LIMIT

    comments = listed(agent)
    assert comments[0] == "good"
    assert 100 < len(comments) < 257
    assert "the list of keys is full: some are not listed" in agent.log
    assert 'place="token \\"faulty\\"' in agent.log


def test_lines_in_the_log(agent: Agent, hostile: Faulty) -> None:
    """It cannot forge one, nor fill the log, nor stand still because nobody reads."""
    forged = "2026-01-01 00:00:00,000 INFO PIN accepted program=ssh"
    hostile.tell("prints", f"{forged}\n\x1b[2J\u202e\n{'x' * 5000}\n" + "flood\n" * 100_000)

    assert longest_listing_while_it_is_added(agent, hostile) < LIMIT

    lines = agent.log.splitlines()
    assert forged not in lines
    printed = [line for line in lines if "module wrote" in line]
    assert all(f"path={hostile.module} " in line for line in printed)
    assert any(line.endswith(f'line="{forged}"') for line in printed)
    assert any(re.search(r'line="?\\+x1b\[2J\\+u202e', line) for line in printed)
    assert 3 <= len(printed) < 60
    assert max(map(len, lines)) < 1100
    assert "module wrote more than is logged" in agent.log
    assert agent.ssh_add("-T", hostile.public).status == 0, agent.log


def test_last_words_are_logged(agent: Agent, hostile: Faulty) -> None:
    assert agent.add_provider(hostile.module, PIN).status == 0, agent.log
    hostile.tell("prints", "assertion failed")
    hostile.tell("C_SignInit", "once crash")

    assert agent.ssh_add("-T", hostile.public).status == 0, agent.log

    eventually(lambda: 'line="assertion failed' in agent.log, "its last words")


@pytest.mark.parametrize(
    "answer",
    [
        b'{"slots": [[Infinity, true, true]]}',
        b'{"slots": [[1, true, true]], "verdict": "failed"}',
        b'{"slots": [[[], {}, 7]]}',
        b'{"slots": {}, "verdict": {}}',
        b'{"slots": [[' + b"9" * 5000 + b", true, true]]}",
        b'{"slots": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b"[]",
        b"\xff",
    ],
)
def test_forged_answers(home: Home, faulty: Faulty, start_agent: StartAgent, answer: bytes) -> None:
    """What it sends in place of its worker's answers."""
    faulty.tell("forged", struct.pack(">II", len(answer), 0) + answer)
    home.configure("modules = []\n")
    agent = start_agent("-P", "*", env=faulty.env)

    assert agent.add_provider(faulty.module, PIN).status != 0

    assert "makes no sense" in agent.log
    assert "Traceback" not in agent.log
