"""Starting, waiting for touch, inserting a card, and memory."""

from __future__ import annotations

import base64
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.contestants import REPLUG, request
from bench.figures import Figure, Reach, interleaved
from bench.processes import all_of, cpu_seconds, memory
from bench.programs import Programs, finished
from rigs.agent import LIST_REQUEST, OPENSSH, Agent, descendants, sign_request
from rigs.home import Home
from rigs.pcscd import OPENSC, YKCS11, Pcscd
from rigs.piv_card import PIN as CARD_PIN
from rigs.piv_card import Card
from rigs.piv_keys import Algorithm, Slot
from rigs.softhsm import MODULE, PIN, Token
from rigs.terminal import eventually
from smartcard.insertion import measure

_PROGRAMS = {"openssh": OPENSSH, "replug": REPLUG}
_AGENT_PID = re.compile(r"SSH_AGENT_PID=(\d+)")
_CLIENTS_OF_MANY = 8
_CARD_LATENCY = 0.015
"""Seconds that a card needs for a command."""


def starting(home: Home, runs: int) -> Iterator[Figure]:
    """From exec to the first answered listing, and how long a shell waits in `eval $(ssh-agent)`."""
    measures = {name: partial(_start, home, program) for name, program in _PROGRAMS.items()}
    for name, samples in interleaved(runs, measures).items():
        reaches = (Reach(60, absolute=True),) if name == "CPU" else ()
        yield Figure(f"start to first answered listing: {name}", "ms", samples, reaches)
    measures = {name: partial(_eval, home, program) for name, program in _PROGRAMS.items()}
    for samples in interleaved(runs, measures).values():
        yield Figure("eval $(agent -s)", "ms", samples)


def waiting_for_touch(
    programs: Programs, home: Home, pcscd: Pcscd, runs: int, touch: float
) -> Iterator[Figure]:
    """Listing while another client's signature waits `touch` seconds for a finger on the card."""
    card = Card(keys={Slot.AUTHENTICATION: Algorithm.P256})
    pcscd.slot.insert(card)
    pcscd.await_present()
    measures = {
        name: partial(_list_during_touch, programs, home, program, card, touch)
        for name, program in _PROGRAMS.items()
    }
    for name, samples in interleaved(runs, measures).items():
        reaches = (Reach(1, absolute=True),) if name == "p99" else ()
        yield Figure(f"listing while another waits {touch:g} s for touch: {name}", "ms", samples, reaches)
    pcscd.slot.remove()
    pcscd.await_empty()


def insertion(home: Home, pcscd: Pcscd, rounds: int) -> Iterator[Figure]:
    """From a card's insertion to its first signature; the other contestant is a fresh pkcs11-tool."""
    for name, module in (("OpenSC", OPENSC), ("libykcs11", YKCS11)):
        ours, theirs = measure(home, pcscd, module, _CARD_LATENCY, 0.0, rounds)
        yield Figure(
            f"insertion to first signature, {name} (beside it pkcs11-tool)",
            "ms",
            {
                "replug": [value * 1e3 for value in ours.seconds],
                "openssh": [value * 1e3 for value in theirs.seconds],
            },
            (Reach(1.0),),
        )


def memories(
    programs: Programs, token: Token, runs: int, counts: tuple[int, int], calm: float
) -> Iterator[Figure]:
    """What all of an agent's processes hold together, idle, with a token, and after so many signatures.

    It is looked at when the agent was left alone for `calm` seconds: it may be starting a process.
    """
    measures = {
        name: partial(_memory, programs, token, program, counts, calm) for name, program in _PROGRAMS.items()
    }
    figures = interleaved(runs, measures)
    for name, samples in figures.items():
        reaches = (Reach(30, absolute=True),) if name == f"PSS after {counts[1]:,} signatures" else ()
        yield Figure(f"memory, {name}", "MiB", samples, reaches)
    first, last = (figures[f"PSS after {count:,} signatures"] for count in counts)
    growth = {
        name: [(after - before) / before * 100 for before, after in zip(first[name], last[name], strict=True)]
        for name in first
    }
    what = f"memory, growth from {counts[0]:,} to {counts[1]:,} signatures"
    yield Figure(what, "%", growth, (Reach(1.0, absolute=True),))


def _start(home: Home, program: Path) -> dict[str, float]:
    address = home.folder / "start.sock"
    began = time.perf_counter()
    process = subprocess.Popen(
        [program, "-D", "-a", address],
        env=home.env, cwd=home.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with socket.socket(socket.AF_UNIX) as client:
            while client.connect_ex(str(address)) != 0:
                assert process.poll() is None, f"{program} ended"
                time.sleep(0.0005)
            client.sendall(LIST_REQUEST)
            assert client.recv(64)
            wall, cpu = time.perf_counter() - began, cpu_seconds([process.pid, *descendants(process.pid)])
    finally:
        process.terminate()
        process.wait()
        address.unlink(missing_ok=True)
    return {"wall": wall * 1e3, "CPU": cpu * 1e3}


def _eval(home: Home, program: Path) -> dict[str, float]:
    began = time.perf_counter()
    done = home.run(program, "-s")
    wall = time.perf_counter() - began
    pid = _AGENT_PID.search(done.out)
    assert pid, done
    os.kill(int(pid[1]), signal.SIGTERM)
    return {"wall": wall * 1e3}


def _list_during_touch(
    programs: Programs, home: Home, program: Path, card: Card, touch: float
) -> dict[str, float]:
    agent = Agent(program, home)
    try:
        added = agent.add_provider(OPENSC, CARD_PIN)
        assert added.status == 0, (added, agent.log)
        blob = base64.b64decode(card.keys[Slot.AUTHENTICATION].ssh.split()[1])
        begun, card.delay = card.signatures_begun, touch
        signing = programs.start_load(agent.socket, sign_request(blob), seconds=touch, count=1)
        card.await_signature(begun + 1)
        listing = programs.load(agent.socket, LIST_REQUEST, seconds=touch / 2)
        signed = finished(signing, touch)
        assert (signed.failures, listing.failures) == (0, 0), agent.log
        return {"p50": listing.p50 / 1e3, "p99": listing.p99 / 1e3}
    finally:
        card.delay = 0.0
        agent.stop()


def _memory(
    programs: Programs, token: Token, program: Path, counts: tuple[int, int], calm: float
) -> dict[str, float]:
    agent = Agent(program, token.home, "-P", "/usr/lib/*")
    found = {}

    def look(when: str) -> None:
        time.sleep(calm)
        now = memory(all_of(agent))
        found[f"PSS {when}"] = now.proportional
        found[f"RSS {when}"] = now.resident

    try:
        look("idle with no token")
        added = agent.add_provider(MODULE, PIN)
        assert added.status == 0, (added, agent.log)
        eventually(lambda: agent.children(), "a process for the module")
        look("with a token")
        done = 0
        for count in counts:
            load = programs.load(
                agent.socket,
                request(token, "p256"),
                seconds=3600,
                clients=_CLIENTS_OF_MANY,
                count=count - done,
            )
            assert load.failures == 0, agent.log[-4000:]
            done = count
            look(f"after {count:,} signatures")
    finally:
        agent.stop()
    return found
