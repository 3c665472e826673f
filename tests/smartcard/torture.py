"""`make torture`: whatever happens to a smart card, and after each time the first request has to sign.

A seed decides what comes when, so that a run can be repeated: `make torture SEED=3 COUNT=50`. All the while
eight clients sign with a software key and two with the card's. LATENCY=100 slows each of the card's commands
by so many ms; DISCOVERY=on has the agent also serve what p11-kit has registered, which is the same card.
A first request is late that takes much longer than a pkcs11-tool that was started at the same moment.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from rigs.agent import Agent
from rigs.askpass import Askpass
from rigs.home import Home
from rigs.key_files import blob_of, make_key, public_of
from rigs.pcscd import OPENSC, YKCS11, Pcscd, home_with_pcscd
from rigs.piv_card import PIN, Card
from rigs.piv_keys import Slot
from rigs.terminal import Done
from smartcard.disturbances import KINDS, Disturbances
from smartcard.footprint import Footprint
from smartcard.load import Load
from smartcard.reference import Reference, reference

PROGRAMS = Path(sys.executable).parent
CONFIGURATION = 'operation_timeout = "{0:g}s"\ntouch_timeout = "{0:g}s"\n'
SILENCE = 4.0
"""Seconds, after which a module counts as hung; the default would be long to wait for so often."""
TRANSACTION = 40
"""A module may wait for another's transaction of so many commands to the card, and is not hung."""
NO_DISCOVERY = "modules = []\n"
MARGIN = 3.0
"""Seconds that the first request may take longer than a fresh pkcs11-tool needs."""
PATIENCE = 30
"""Seconds that the agent has to sign in after all when it failed, for the run to go on."""
SETTLED = 8.0
"""Seconds without a process that starts or ends: workers have ended, a spare is forked, each module has one.

One that leaves the card to another, which was used last, starts its worker some seconds later.
"""
STARTED = 3.0
"""The same at the beginning, when each module has had its turn at the card: then the spare is forked."""
GROWTH = 1.1
"""How much of its memory after warming up the agent may have at the end."""
BEFORE = 10.0
"""Seconds before a late request, from which on the report shows what the card was asked."""
LOG_TAIL = 40
"""Lines of the agent's log that a failure's report shows, not counting those of software keys that signed."""
SIGNED_IN_SOFTWARE = "token=memory"


@dataclass
class Tally:
    """What became of one kind of disturbance."""

    failures: int = 0
    late: int = 0
    seconds: list[float] = field(default_factory=list)
    """How long each first request took."""
    tool_seconds: list[float] = field(default_factory=list)
    """How long pkcs11-tool took at the same moments."""


class Torture:
    """A card whose keys the agent has, all that is done to them, and what came of it."""

    def __init__(
        self,
        home: Home,
        pcscd: Pcscd,
        program: Path,
        module: Path,
        seed: int,
        reference: Reference,
        *,
        latency: float = 0.0,
        discovery: bool = False,
    ) -> None:
        """Each of the card's commands takes `latency` seconds."""
        configuration = CONFIGURATION.format(max(SILENCE, TRANSACTION * latency))
        home.write(".config/replug/config.toml", ("" if discovery else NO_DISCOVERY) + configuration)
        self._home = home
        self._askpass = Askpass(home)
        self._askpass.answers(PIN)
        self._card = Card()
        self._card.latency = latency
        pcscd.slot.insert(self._card)
        pcscd.await_present()
        self._publics = {slot: key.write_public(home, f"{slot:x}") for slot, key in self._card.keys.items()}
        self._module = module
        self._seed = seed
        self._chance = random.Random(seed)
        self._reference = reference
        self.agent = Agent(program, home, env=self._askpass.env)
        software = make_key(home, "software")
        assert self.agent.ssh_add(software).status == 0, self.agent.log
        self._load = Load(
            self.agent, blob_of(public_of(software)), blob_of(self._publics[Slot.AUTHENTICATION])
        )
        self._disturbances = Disturbances(pcscd, self.agent, self._card, self._chance, self._load)
        self.tallies = {kind: Tally() for kind in KINDS}
        self.failures: list[str] = []
        self.late: list[str] = []
        self._processes: int
        """Of the agent at the beginning: none is missing that is started again only when it is needed."""
        self._warm: Footprint
        self._end: Footprint

    def run(self, count: int) -> None:
        """Disturbs `count` times, the first of them to warm up; `failures` is empty if all was well."""
        added = self.agent.add_provider(self._module, PIN)
        assert added.status == 0, (added, self.agent.log)
        self._load.start()
        self._processes = self._footprint(STARTED).processes
        for step, kind in enumerate(islice(self._kinds(), count)):
            if step == min(len(KINDS), count // 2):
                self._warm = self._footprint(SETTLED)
            self._disturb(step, kind)
        self._load.stop()
        self._end = self._footprint(SETTLED)
        self._judge()

    def table(self) -> str:
        """How it went by kind, and the totals."""
        lines = [f"{'':34}{'times':>6}{'failed':>8}{'late':>6}{'median s':>10}{'p95 s':>8}{'longest s':>11}"]
        for kind, tally in self.tallies.items():
            if seconds := tally.seconds:
                lines.append(
                    f"{kind.replace('_', ' '):34}{len(seconds):6}{tally.failures:8}{tally.late:6}"
                    f"{statistics.median(seconds):10.2f}{p95(seconds):8.2f}{max(seconds):11.2f}"
                )
        sent = self._card.verifies - self._disturbances.wrong_pins
        all_seconds = [second for tally in self.tallies.values() for second in tally.seconds]
        tool = [second for tally in self.tallies.values() for second in tally.tool_seconds]
        software = self._load.software_seconds or [0.0]
        lines += [
            f"The first signature after each: median {statistics.median(all_seconds):.2f} s,"
            f" p95 {p95(all_seconds):.2f} s; {len(self.late)} of {len(all_seconds)} more than {MARGIN:g} s"
            " longer than pkcs11-tool",
            f"pkcs11-tool at the same moments: median {statistics.median(tool):.2f} s, p95 {p95(tool):.2f} s",
            f"Meanwhile: {len(software)} signatures in software, median {statistics.median(software):.3f} s,"
            f" p95 {p95(software):.3f} s, refused {self._load.software_failures};"
            f" {self._load.card_signatures} by the card for other clients",
            f"PINs sent to the card: {sent}, wrong ones: {self._wrong_pins}",
            f"PINs sent to the other card: {self._disturbances.other.verifies}",
            f"PINs asked for: {len(self._askpass.questions)}",
            f"Warmed up:  {self._warm}",
            f"At the end: {self._end}",
        ]
        return "\n".join(lines)

    @property
    def _wrong_pins(self) -> int:
        return self._card.wrong_pins - self._disturbances.wrong_pins

    def _kinds(self) -> Iterator[str]:
        while True:
            yield from self._chance.sample(KINDS, len(KINDS))

    def _disturb(self, step: int, kind: str) -> None:
        getattr(self._disturbances, kind)()
        slot = self._chance.choice(list(self._publics))
        tally, begin, began_at = self.tallies[kind], time.monotonic(), time.time()
        by_the_tool = self._reference.begin()
        done = self._use(slot)
        seconds = time.monotonic() - begin
        tool_seconds = by_the_tool.result()
        tally.seconds.append(seconds)
        tally.tool_seconds.append(tool_seconds)
        what = f"step {step}, {kind}, {slot:x}: {seconds:.2f} s, pkcs11-tool {tool_seconds:.2f} s"
        print(what, file=sys.stderr)
        if seconds > tool_seconds + MARGIN:
            tally.late += 1
            self.late.append(self._reported(f"{what}\n{self._commands_since(began_at)}"))
        under_way, self._disturbances.under_way = self._disturbances.under_way, None
        outcomes = {
            f"the first request, with {slot:x}": done,
            # By the login that goes with it the card is as we want it for the next step: all tries left.
            "the next one, with 9a": self._use(Slot.AUTHENTICATION),
            "the one under way": under_way.result() if under_way else done,
        }
        failed = [f"{what}: {done.err.strip()}" for what, done in outcomes.items() if done.status != 0]
        if failed:
            tally.failures += 1
            self._report(f"step {step}, {kind}: {'; '.join(failed)}")
            end = time.monotonic() + PATIENCE
            while self._use(Slot.AUTHENTICATION).status != 0:
                assert time.monotonic() < end, f"no signature within {PATIENCE} s\n" + "\n".join(
                    self.failures
                )

    def _commands_since(self, when: float) -> str:
        """What the card was asked, with the clock as in the agent's log."""
        commands = [(began, name) for began, name in self._card.history if began > when - BEFORE]
        lines = [
            f"{time.strftime('%H:%M:%S', time.localtime(began))},{began % 1 * 1000:03.0f} {name}"
            for began, name in commands
        ]
        return "\n".join(lines)

    def _use(self, slot: Slot) -> Done:
        return self.agent.ssh_add("-T", self._publics[slot])

    def _report(self, what: str) -> None:
        self.failures.append(self._reported(what))

    def _reported(self, what: str) -> str:
        told = [line for line in self.agent.log.splitlines() if SIGNED_IN_SOFTWARE not in line]
        log = "\n".join(told[-LOG_TAIL:])
        status = self.agent.run(PROGRAMS / "replug", "status")
        return f"{self._module.name} seed {self._seed}: {what}\n{log}\n{status.out}{status.err}"

    def _footprint(self, settled: float) -> Footprint:
        """What the agent takes when no process has started or ended for `settled` seconds."""
        count, since = -1, time.monotonic()
        while time.monotonic() - since < settled:
            if len(self.agent.children()) != count:
                count, since = len(self.agent.children()), time.monotonic()
            time.sleep(0.1)
        readings = []
        for _ in range(5):
            readings.append(Footprint.of(self.agent))
            # The agent may not have noticed yet that the last client is gone, and nothing tells when it has.
            time.sleep(0.1)
        return min(readings, key=lambda reading: reading.files)

    def _judge(self) -> None:
        """What has to hold at the end, whatever happened."""
        warm, end = self._warm, self._end
        others = self._disturbances.other.verifies
        asked = len(self._askpass.questions)
        refused = self._load.software_failures
        checks = {
            f"every software key to sign, but {refused} requests were refused": refused == 0,
            "the agent to answer": self.agent.alive(),
            f"no wrong PIN, but {self._wrong_pins} were sent": self._wrong_pins == 0,
            f"no PIN for the other card, but it got {others}": others == 0,
            f"no questions: {self._askpass.text}": asked == 0,
            f"the memory of {warm}, not {end}": end.memory <= warm.memory * GROWTH,
            f"the files of {warm}, not {end}": end.files <= warm.files,
            f"the {self._processes} processes of the beginning, not {end}": end.processes <= self._processes,
        }
        for expectation, met in checks.items():
            if not met:
                self._report(f"expected {expectation}")


def p95(seconds: list[float]) -> float:
    """The 95th percentile."""
    return sorted(seconds)[round(0.95 * (len(seconds) - 1))]


def main() -> int:
    """Runs it with each module and seed; the exit status."""
    modules = {"opensc": OPENSC, "ykcs11": YKCS11}
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seed", type=int, nargs="+", default=[1, 2, 3])
    arguments.add_argument("--count", type=int, default=200)
    arguments.add_argument("--module", choices=modules, nargs="+", default=list(modules))
    arguments.add_argument("--latency", type=float, default=0, help="of a command to the card, in ms")
    arguments.add_argument("--discovery", choices=("on", "off"), default="off")
    chosen = arguments.parse_args()
    status = 0
    for name in chosen.module:
        for seed in chosen.seed:
            latency = chosen.latency / 1000
            with home_with_pcscd() as (home, pcscd), reference(modules[name], latency) as tool:
                torture = Torture(
                    home,
                    pcscd,
                    PROGRAMS / "replug-agent",
                    modules[name],
                    seed,
                    tool,
                    latency=latency,
                    discovery=chosen.discovery == "on",
                )
                started = time.monotonic()
                try:
                    torture.run(chosen.count)
                finally:
                    torture.agent.stop()
                seconds = time.monotonic() - started
                what = f"{name}, seed {seed}, {chosen.latency:g} ms, discovery {chosen.discovery}"
                print(f"\n{what}, {seconds:.0f} s\n{torture.table()}", flush=True)
            for word, reports in (("FAILED", torture.failures), ("LATE", torture.late)):
                for report in reports:
                    print(f"\n{word} {report}", flush=True)
                    status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
