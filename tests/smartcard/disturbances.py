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

WRONG = "654321"


class Disturbances:
    """One method for each kind, which returns when the card is back, if it was away, and known to pcscd."""

    def __init__(self, pcscd: Pcscd, agent: Agent, card: Card, chance: random.Random) -> None:
        """`card` is in the slot, and `agent` has its keys."""
        self._pcscd = pcscd
        self._agent = agent
        self._card = card
        self._chance = chance
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

    # Other programs.

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

    # The worker process.

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
        self._card.await_signature(begun + 1)
        self._card.delay = 0.0
        return signing

    def _signal_workers(self, sign: signal.Signals) -> None:
        for pid in self._agent.children():
            with suppress(ProcessLookupError):  # its end is a worker's end, too
                os.kill(pid, sign)


KINDS = [name for name in vars(Disturbances) if not name.startswith("_")]
