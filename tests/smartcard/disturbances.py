"""What may happen to a smart card and to those who use it."""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from rigs.agent import Agent
from rigs.pcscd import Pcscd
from rigs.piv_card import Card
from rigs.piv_keys import Slot
from rigs.terminal import Done
from smartcard.load import Load

WRONG = "654321"
LOCKING = "until I am back"
HELD, STOPPED = 3.0, 5.0  # seconds


class Disturbances:
    """One method for each kind, which returns when the card is back, if it was away, and known to pcscd."""

    def __init__(
        self, pcscd: Pcscd, agent: Agent, card: Card, chance: random.Random, load: Load | None
    ) -> None:
        """`card` is in the slot, and `agent` has its keys; `load` is told when these are locked."""
        self._pcscd = pcscd
        self._agent = agent
        self._card = card
        self._chance = chance
        self._load = load
        self._public = card.keys[Slot.AUTHENTICATION].write_public(agent.home, "disturbed")
        self._clients = ThreadPoolExecutor()
        self.other = Card(serial=5004321)
        self.wrong_pins = 0
        """How many another program has sent."""
        self.under_way: Future[Done] | None = None
        """A signature that was disturbed, but not by taking its card away: it has to succeed."""

    # The person with the card.

    def pulled_and_returned(self) -> None:
        self._pcscd.slot.remove()
        if self._sometimes():
            self._pcscd.await_empty()
        if self._sometimes():
            assert self._use().status != 0, "a signature without a card"
        self._return()

    def pulled_during_a_signature(self) -> None:
        signing = self._sign_slowly()
        self._pcscd.slot.remove()
        if self._sometimes():
            signing.result()
        self._return()

    def out_for_a_blink(self) -> None:
        self._pcscd.slot.remove()
        time.sleep(self._chance.uniform(0, 0.1))
        self._return()

    def swapped_and_back(self) -> None:
        self._pcscd.slot.swap(self.other)
        if self._sometimes():
            self._pcscd.await_present()
        if self._sometimes():
            assert self._use().status != 0, "a signature without the card"
        self._pcscd.slot.remove()
        self._return()

    def exchanged_within_a_moment(self) -> None:
        for card in (self.other, self._card):
            self._pcscd.slot.swap(card)
            time.sleep(self._chance.uniform(0, 0.1))
        self._pcscd.await_present()

    # The card.

    def card_fails_once(self) -> None:
        self._card.refuses_once = 0x6F00

    def card_refuses_once(self) -> None:
        self._card.refuses_once = 0x6982

    # Other programs.

    def transaction_by_another_program(self) -> None:
        with self._pcscd.held_by_another("transact"):
            self.under_way = self._clients.submit(self._use)
            time.sleep(HELD)

    def pcscd_stopped(self) -> None:
        with self._pcscd.stopped():
            self.under_way = self._clients.submit(self._use)
            time.sleep(STOPPED)

    def pcscd_restarted(self) -> None:
        self._pcscd.restart(signal.SIGTERM)
        self._pcscd.await_present()

    def pcscd_killed(self) -> None:
        self._pcscd.restart(signal.SIGKILL)
        self._pcscd.await_present()

    def card_reset(self) -> None:
        self._pcscd.reset_card()

    def other_application_selected(self) -> None:
        self._pcscd.select_other_application()

    def wrong_pin_by_another_program(self) -> None:
        self.wrong_pins += 1
        assert self._pcscd.send_pin(WRONG) == "63c2"

    # The agent and its worker process.

    def locked_and_unlocked(self) -> None:
        assert self._load is not None, "whoever signs all the while has to know"
        self._load.pause()
        typing = [("Enter lock password: ", LOCKING), ("Again: ", LOCKING)]
        assert self._agent.ssh_add("-x", typing=typing).status == 0
        if self._sometimes():
            assert self._use().status != 0, "a signature by a locked agent"
        assert self._agent.ssh_add("-X", typing=[("Enter lock password: ", LOCKING)]).status == 0
        self._load.go_on()

    def worker_killed(self) -> None:
        self._signal_workers(signal.SIGKILL)

    def worker_killed_during_a_signature(self) -> None:
        self.under_way = self._sign_slowly()
        self._signal_workers(signal.SIGKILL)

    def worker_hung(self) -> None:
        self._signal_workers(signal.SIGSTOP)

    def worker_hung_during_a_signature(self) -> None:
        self.under_way = self._sign_slowly()
        self._signal_workers(signal.SIGSTOP)

    def _sometimes(self) -> bool:
        return self._chance.random() < 0.5

    def _use(self) -> Done:
        return self._agent.ssh_add("-T", self._public)

    def _return(self) -> None:
        self._pcscd.slot.insert(self._card)
        self._pcscd.await_present()

    def _sign_slowly(self) -> Future[Done]:
        """A signature that the card has begun."""
        begun, self._card.delay = self._card.signatures_begun, 0.5
        signing = self._clients.submit(self._use)
        self._card.await_signature(begun + 1, within=10 + 200 * self._card.latency)
        self._card.delay = 0.0
        return signing

    def _signal_workers(self, sign: signal.Signals) -> None:
        for pid in self._agent.children():
            with suppress(ProcessLookupError):  # its end is a worker's end, too
                os.kill(pid, sign)


KINDS = [name for name in vars(Disturbances) if not name.startswith("_")]
