"""`make soak`: for so many minutes many clients, a card that is disturbed all the time, adds, removes, locks.

A seed decides what comes when. The verdict names every line that does not hold, and then the status is 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.contestants import REPLUG, request
from bench.footprint import Footprint, grown
from bench.programs import Figures, Programs, build, finished
from rigs.agent import LIST_REQUEST, Agent
from rigs.askpass import Askpass
from rigs.home import Home
from rigs.pcscd import OPENSC, Pcscd, home_with_pcscd
from rigs.piv_card import PIN as CARD_PIN
from rigs.piv_card import Card
from rigs.piv_keys import Slot
from rigs.softhsm import MODULE, PIN, Token
from smartcard.disturbances import KINDS, Disturbances

CONFIGURATION = 'modules = []\noperation_timeout = "4s"\ntouch_timeout = "4s"\n'
"""When a module counts as hung; the default would be long to wait for so often."""
LOCK = [("Enter lock password: ", "sesame"), ("Again: ", "sesame")]
UNLOCK = LOCK[:1]
WRONG = [("Enter lock password: ", "tahini")]
LAG = 50.0
"""Milliseconds that 999 of 1000 listings may take at most."""
LOADS = {
    # what is asked: clients, seconds of rest after a reply, a new connection for each
    "listing, connecting": (LIST_REQUEST, 16, 0.2, True),
    "signing": (None, 16, 0.2, False),
    "signing, connecting": (None, 8, 0.2, True),
}
_LOG_TAIL = 30


HARMLESS = [kind for kind in KINDS if kind != "locked_and_unlocked"]
"""To clients that sign all the while with other keys than the card's."""


@dataclass
class Tally:
    """What was asked, and what came of it."""

    requests: int = 0
    disturbances: int = 0
    failures: list[str] = field(default_factory=list)


class Soak:
    """An agent with a SoftHSM token that many clients use, and a card to which all sorts of things happen."""

    def __init__(self, home: Home, pcscd: Pcscd, programs: Programs, seed: int) -> None:
        home.write(".config/replug/config.toml", CONFIGURATION)
        self._home, self._programs, self._chance = home, programs, random.Random(seed)
        self._askpass = Askpass(home)
        self._askpass.answers(CARD_PIN)
        self._token = Token(home)
        for kind in ("p256", "rsa2048"):
            self._token.add(kind)
        self._card = Card()
        pcscd.slot.insert(self._card)
        pcscd.await_present()
        self._public = self._card.keys[Slot.AUTHENTICATION].write_public(home, "9a")
        self.agent = Agent(REPLUG, home, env=self._askpass.env)
        self._disturbances = Disturbances(pcscd, self.agent, self._card, self._chance, None)
        self.tally = Tally()
        self._footprints: list[Footprint] = []
        self.lag: Figures
        self.machine: Figures
        """The lag of an agent that does nothing: the machine's share."""

    def run(self, seconds: float, slice_seconds: float) -> None:
        """Goes on for so long: slices under load, and between them what loads would be refused at."""
        self._expect("ssh-add -s", self.agent.add_provider(OPENSC, CARD_PIN).status, 0)
        self._expect("ssh-add -s", self.agent.add_provider(MODULE, PIN).status, 0)
        trivial = self._home.folder / "trivial.sock"
        with self._programs.trivial_agent(trivial, b"\0\0\0\5\x0c\0\0\0\0"):
            listings = [
                self._programs.start_load(socket, LIST_REQUEST, seconds=seconds, rest=0.005)
                for socket in (self.agent.socket, trivial)
            ]
            end = time.monotonic() + seconds
            while time.monotonic() < end - slice_seconds:
                self._slice(slice_seconds)
                self._between()
                self._footprints.append(Footprint.of(self.agent))
            self.lag, self.machine = (finished(listing, seconds) for listing in listings)
        self._count("listing all the time", self.lag)

    def verdict(self) -> dict[str, bool]:
        """What had to hold, in words, and whether it did."""
        wrong = self._card.wrong_pins - self._disturbances.wrong_pins
        others = self._disturbances.other.verifies
        lag = self.lag.p999 / 1000
        crashes, failures = self.agent.log.count("Traceback"), len(self.tally.failures)
        return {
            f"no failed request of {self.tally.requests:,}: {failures}": failures == 0,
            f"no PIN try wasted: {wrong} wrong, {others} to another card": wrong == others == 0,
            f"nobody asked for a PIN: {len(self._askpass.questions)} times": not self._askpass.questions,
            f"listing p99.9 under {LAG:g} ms: {lag:.1f} (an agent that does nothing:"
            f" {self.machine.p999 / 1000:.1f})": lag < LAG,
            "the agent never restarted, and answers": self.agent.alive(),
            f"no traceback in its log: {crashes}": crashes == 0,
            **grown(self._footprints),
        }

    def _slice(self, seconds: float) -> None:
        loads = {
            name: self._programs.start_load(
                self.agent.socket, frame or request(self._token, "p256"), seconds=seconds, clients=clients,
                rest=rest, reconnect=reconnect,
            )
            for name, (frame, clients, rest, reconnect) in LOADS.items()
        }  # fmt: skip
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._disturb(self._chance.choice(HARMLESS))
        for name, load in loads.items():
            self._count(name, finished(load, seconds))

    def _disturb(self, kind: str) -> None:
        getattr(self._disturbances, kind)()
        self.tally.disturbances += 1
        self._sign(f"the first signature after {kind}")
        under_way, self._disturbances.under_way = self._disturbances.under_way, None
        if under_way is not None:
            self._expect(f"the signature during {kind}", under_way.result().status, 0)
        # By the login that goes with it the card is as we want it for the next step: all tries left.
        self._sign(f"the next signature after {kind}")
        # A request is tried twice. Workers killed or hung again while the other token's request is in its
        # second try would make it fail, and rightly: two faults in one request are left out here.
        self._use_software_token(f"the software token after {kind}")

    def _between(self) -> None:
        """Locking, and adding and removing."""
        ssh_add = self.agent.ssh_add
        self._expect("ssh-add -x", ssh_add("-x", typing=LOCK).status, 0)
        self._expect("ssh-add -l, locked", ssh_add("-l").status, 1)
        self._expect("ssh-add -X, wrong", ssh_add("-X", typing=WRONG).status, 1)
        self._expect("ssh-add -X", ssh_add("-X", typing=UNLOCK).status, 0)
        for _ in range(self._chance.randint(1, 3)):
            if self._chance.random() < 0.5:
                self._expect("ssh-add -e", ssh_add("-e", MODULE).status, 0)
            self._expect("ssh-add -s", self.agent.add_provider(MODULE, PIN).status, 0)
        self._sign("the card's signature after adding and removing")
        # The other module's worker is there for the footprint, too.
        self._use_software_token("the software token after adding and removing")

    def _sign(self, what: str) -> None:
        self._expect(what, self.agent.ssh_add("-T", self._public).status, 0)

    def _use_software_token(self, what: str) -> None:
        self._expect(what, self.agent.ssh_add("-T", self._token.public("p256")).status, 0)

    def _count(self, what: str, load: Figures) -> None:
        self.tally.requests += load.replies
        if load.failures:
            self._report(f"{load.failures} of {load.replies} failed: {what}")

    def _expect(self, what: str, status: int, wanted: int) -> None:
        self.tally.requests += 1
        if status != wanted:
            self._report(f"status {status}, not {wanted}: {what}")

    def _report(self, what: str) -> None:
        log = [line for line in self.agent.log.splitlines() if " INFO signed " not in line]
        self.tally.failures.append("\n".join([what, *log[-_LOG_TAIL:]]))


def main() -> int:
    """Runs it and prints the verdict; the exit status."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--minutes", type=float, default=60)
    arguments.add_argument("--seed", type=int, default=1)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="rp-") as folder, home_with_pcscd() as (home, pcscd):
        soak = Soak(home, pcscd, build(Path(folder)), chosen.seed)
        try:
            soak.run(60 * chosen.minutes, slice_seconds=10)
            verdict = soak.verdict()
        finally:
            soak.agent.stop()
    print(f"{chosen.minutes:g} minutes, seed {chosen.seed}, {soak.tally.disturbances} disturbances")
    for line, holds in verdict.items():
        print(f"{'ok    ' if holds else 'BROKEN'} {line}")
    for failure in soak.tally.failures:
        print(f"\n{failure}")
    return 0 if all(verdict.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
