"""`make insertion`: from a card's insertion to its first signature, by replug and by a fresh `pkcs11-tool`.

Both are asked from the moment of insertion on, again and again until they sign; then also some seconds after
it, as by a person who turns to the keyboard. They take turns, and each has the card for itself. Time counts
from when the reader has found the card: that pcscd looks for one every 0.4 seconds is neither's affair.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from rigs.agent import Agent
from rigs.home import Home
from rigs.pcscd import OPENSC, YKCS11, Pcscd, home_with_pcscd
from rigs.piv_card import PIN, Card
from rigs.piv_keys import Algorithm, Slot
from rigs.terminal import Done, eventually
from smartcard.reference import sign_with_pkcs11_tool

REPLUG_AGENT = Path(sys.executable).with_name("replug-agent")
TURNING = 3.0
PATIENCE = 30.0


@dataclass
class Figures:
    """What one of the two needed, insertion by insertion."""

    seconds: list[float] = field(default_factory=list)
    commands: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        seconds = " ".join(f"{value:.2f}" for value in sorted(self.seconds))
        return f"{self.median:.2f} s, {statistics.median(self.commands):.0f} card commands ({seconds})"

    @property
    def median(self) -> float:
        """In seconds."""
        return statistics.median(self.seconds)


def measure(
    home: Home, pcscd: Pcscd, module: Path, latency: float, pause: float, rounds: int
) -> tuple[Figures, Figures]:
    """replug's figures and pkcs11-tool's, which are asked `pause` seconds after an insertion.

    Each command to the card takes `latency` seconds. Pauses do not count.
    """
    card = Card(keys=dict.fromkeys((Slot.AUTHENTICATION, Slot.SIGNATURE), Algorithm.P256))
    card.latency = latency
    pcscd.slot.insert(card)
    pcscd.await_present()
    public = card.keys[Slot.AUTHENTICATION].write_public(home, "9a")
    agent = Agent(REPLUG_AGENT, home)
    try:
        added = agent.add_provider(module, PIN)
        assert added.status == 0, (added, agent.log)

        def by_replug() -> Done:
            return agent.ssh_add("-T", public)

        def by_pkcs11_tool() -> Done:
            return sign_with_pkcs11_tool(home, module)

        ours, theirs = Figures(), Figures()
        take_out(pcscd)
        for _ in range(rounds):
            eventually(lambda: agent.ssh_add("-l").status == 1, "the agent lists no key")
            insert_and_sign(pcscd, card, pause, by_replug, ours)
            take_out(pcscd)
            os.kill(agent.pid, signal.SIGSTOP)
            insert_and_sign(pcscd, card, pause, by_pkcs11_tool, theirs)
            take_out(pcscd)
            os.kill(agent.pid, signal.SIGCONT)
        return ours, theirs
    finally:
        os.kill(agent.pid, signal.SIGCONT)
        agent.stop()


def take_out(pcscd: Pcscd) -> None:
    """Pulls the card, and waits until pcscd knows."""
    pcscd.slot.remove()
    pcscd.await_empty()


def insert_and_sign(
    pcscd: Pcscd, card: Card, pause: float, sign: Callable[[], Done], figures: Figures
) -> None:
    """Puts `card` into the slot, which is empty, and after a pause takes the time until `sign` succeeds."""
    signatures = card.signatures
    pcscd.slot.insert(card)
    time.sleep(pause)
    commands, asked = card.commands, time.monotonic()
    while (done := sign()).status != 0:
        assert time.monotonic() < asked + PATIENCE, done
    figures.seconds.append(time.monotonic() - max(asked, pcscd.slot.found))
    figures.commands.append(card.commands - commands)
    assert card.signatures == signatures + 1


def main() -> None:
    """Prints the figures for each module."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--latency", type=float, default=15, help="of a command to the card, in ms")
    chosen = arguments.parse_args()
    print(f"Time to the first signature, median of {chosen.rounds}; {chosen.latency:g} ms per card command")
    for pause, when in ((0.0, "from insertion on"), (TURNING, f"{TURNING:g} s after insertion")):
        for name, module in (("OpenSC", OPENSC), ("libykcs11", YKCS11)):
            with home_with_pcscd() as (home, pcscd):
                ours, theirs = measure(home, pcscd, module, chosen.latency / 1000, pause, chosen.rounds)
            print(f"{name}, asked {when}:")
            print(f"  replug       {ours}")
            print(f"  pkcs11-tool  {theirs}")
            print(f"  ratio        {ours.median / theirs.median:.2f}", flush=True)


if __name__ == "__main__":
    main()
