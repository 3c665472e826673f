"""The agent and its unmodified monitor, fed with events as udev sends them; and with none at all."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import inf
from statistics import median

import pytest
from rigs.agent import LIST_REQUEST, PIN_PROMPT, Agent, Connection
from rigs.faulty import Faulty
from rigs.softhsm import PIN
from rigs.terminal import eventually
from rigs.udev import MOUSE, YUBIKEY, Properties, Udev, message

LOST = "USB events were lost"
ACTIONS = ("add", "bind", "unbind", "remove")
SOON = 0.3  # seconds; see Bench.reaction


@dataclass
class Bench:
    """An agent that listens to udev and serves the token of `faulty`, but has not got its PIN: so the module
    is asked for nothing but to look at its slots."""

    udev: Udev
    agent: Agent
    faulty: Faulty
    calm_after: int = 0
    """The number of looks after which the next one that is planned anyway is half a second away."""

    def reaction(self, *events: Properties) -> float:
        """The seconds from these events to the look that follows; those after the events before are over."""
        eventually(lambda: self.faulty.scans() >= self.calm_after, "looks further apart")
        before = self.faulty.scans()
        self.calm_after = before + 4
        started = time.monotonic()
        self.udev.send(*events)
        eventually(lambda: self.faulty.scans() > before, "a look")
        return time.monotonic() - started


@pytest.fixture
def bench(udev: Udev, agent: Agent, faulty: Faulty) -> Bench:
    """See there; no event has come yet."""
    udev.listener()
    done = agent.ssh_add("-s", faulty.module, typing=[(PIN_PROMPT, "")])
    assert done.status == 0, (done, agent.log)
    return Bench(udev, agent, faulty)


def test_a_reader_that_comes_and_goes_is_looked_for_at_once(bench: Bench) -> None:
    best = dict.fromkeys(ACTIONS, inf)
    for _ in range(10):  # once is enough, but this machine may be busy
        for action in ACTIONS:
            best[action] = min(best[action], bench.reaction(YUBIKEY.event(action)))
        if max(best.values()) < SOON:
            break
    assert {action: seconds for action, seconds in best.items() if seconds >= SOON} == {}


def test_other_devices_concern_nobody(bench: Bench) -> None:
    looks, glances = bench.faulty.scans(), bench.faulty.entered("C_GetSlotList")

    bench.udev.send(*[MOUSE.event(action) for action in ACTIONS])
    bench.udev.send(YUBIKEY.event("unbind"), YUBIKEY.event("remove"))  # at a port we saw none at

    bench.faulty.await_calls("C_GetSlotList", glances + 4)  # two for a glance, which goes on as before
    assert bench.faulty.scans() == looks
    assert bench.udev.listener().waiting == 0


def test_after_an_overflow_slots_are_looked_at_and_later_events_are_noticed(bench: Bench) -> None:
    before, looks = bench.udev.listener(), bench.faulty.scans()

    os.kill(bench.agent.pid, signal.SIGSTOP)
    while bench.udev.listener().lost == 0:
        bench.udev.send(MOUSE.event("change"))
    assert bench.faulty.scans() == looks
    os.kill(bench.agent.pid, signal.SIGCONT)

    eventually(lambda: bench.faulty.scans() > looks, "a look because events were lost")
    assert bench.agent.log.count(LOST) == 1
    eventually(lambda: bench.udev.listener().inode != before.inode, "a new monitor")
    bench.reaction(YUBIKEY.event("add"))
    assert bench.reaction(YUBIKEY.event("remove")) < SOON


GARBAGE = {
    "another magic number": message(YUBIKEY.event("add"), magic=0xFEEDFACE),
    "another subsystem in the header": message(YUBIKEY.event("add"), subsystem="net"),
    "half a header": message(YUBIKEY.event("add"))[:20],
    "only a header": message(YUBIKEY.event("add"))[:40],
    "half a message": message(YUBIKEY.event("add"))[:100],
    "properties beyond the end": message(YUBIKEY.event("add"))[:16] + b"\xff" * 8,
    "100 KB": message({**YUBIKEY.event("add"), "ID_MODEL_ENC": 100_000 * "x"}),
    "no properties": message(YUBIKEY.event("add"))[:40] + bytes(1000),
    "no number": message(YUBIKEY.event("add")),
    "no such action": message({**YUBIKEY.event("explode"), "SEQNUM": "1"}),
    "no path": message({**YUBIKEY.event("add"), "SEQNUM": "1", "DEVPATH": ""}),
    "no text": message({**YUBIKEY.event("add"), "SEQNUM": "1"}).replace(b"Yubi", b"\xff\xfe\xfd\xfc"),
    "all bytes": bytes(range(256)),
    "one byte": b"l",
}


def test_garbage_does_no_lasting_harm(bench: Bench) -> None:
    """Some of it libudev drops, and some is an error that costs the monitor; then a new one is made."""
    for name, garbage in GARBAGE.items():
        feed(bench.udev, name, garbage)
    feed(bench.udev, "an event", message({**YUBIKEY.event("add"), "SEQNUM": "1"}))
    bench.reaction(YUBIKEY.event("change"))
    actions = ("unbind", "remove", "add", "bind")  # once is enough, but this machine may be busy
    assert min(bench.reaction(YUBIKEY.event(action)) for action in actions) < SOON


def feed(udev: Udev, name: str, data: bytes) -> None:
    """Sends this until it has been read by a listener, and not just lost with the one before."""
    while True:
        listener = udev.listener()
        udev.send_raw(data)
        eventually(lambda: udev.listener().waiting == 0, f"{name} has been read")
        if udev.listener().inode == listener.inode:
            return


def test_a_thousand_events_at_once_are_few_looks_and_delay_nobody(bench: Bench) -> None:
    with bench.agent.connect() as connection, ThreadPoolExecutor() as other:
        calm = [listed(connection) for _ in range(100)]
        looks, started = bench.faulty.scans(), time.monotonic()
        waited = []
        burst = other.submit(bench.udev.send, *[YUBIKEY.event("change")] * 1000)
        while not burst.done() or bench.udev.listener().waiting or len(waited) < 100:
            waited.append(listed(connection))
    burst.result()
    eventually(lambda: bench.faulty.scans() >= looks + 4, "looks after the burst")

    # Beside the same without events: this is not about how busy the machine is.
    assert median(waited) < max(0.05, 10 * median(calm))
    assert bench.faulty.scans() - looks <= 1 + (time.monotonic() - started) / 0.05


def listed(connection: Connection) -> float:
    """How long a listing takes."""
    asked = time.monotonic()
    assert connection.ask(LIST_REQUEST)[:5] == b"\x0c\0\0\0\1"
    return time.monotonic() - asked


@pytest.mark.parametrize("udev_runs", [True, False], ids=["udev", "no udev"])
def test_a_token_that_was_out_signs_again_without_its_pin(
    udev_runs: bool, udev: Udev, agent: Agent, faulty: Faulty
) -> None:
    key = faulty.public.read_text().strip()
    assert agent.add_provider(faulty.module, PIN).status == 0, agent.log
    assert agent.ssh_add("-L").out.strip() == key
    if udev_runs:
        udev.listener()
    udev.send(YUBIKEY.event("add"), YUBIKEY.event("bind"))

    faulty.tell("out", "")
    udev.send(YUBIKEY.event("unbind"), YUBIKEY.event("remove"))
    eventually(lambda: agent.ssh_add("-L").out == "The agent has no identities.\n", "the key is gone")

    faulty.tell("out", None)
    udev.send(YUBIKEY.event("add"), YUBIKEY.event("bind"))
    eventually(lambda: agent.ssh_add("-L").out.strip() == key, "the key is back")

    assert agent.ssh_add("-T", faulty.public).status == 0, agent.log
    assert faulty.returns("C_Login") == [0, 0]
    assert agent.log.count("cannot watch USB events") == (0 if udev_runs else 1)
