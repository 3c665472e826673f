"""Who is in the reader, not whether somebody is; and a removal ends what is under way."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rigs.agent import Agent
from rigs.home import Home
from rigs.pcscd import Pcscd
from rigs.piv_card import Card
from rigs.piv_keys import Slot
from rigs.terminal import eventually

SWAPS = 20
NEVER_OUT_FOR = 2.0
"""Seconds for which a token that is back may be thought to be out."""


@pytest.fixture
def other() -> Card:
    """Another card, which is not in the reader."""
    return Card(serial=5004321)


def listed(agent: Agent, public: Path) -> bool:
    return public.read_text().split()[1] in agent.ssh_add("-L").out


def test_cards_that_change_places_within_a_moment_are_told_apart(
    working_agent: Agent, pcscd: Pcscd, card: Card, other: Card, public: Path, home: Home
) -> None:
    others = other.keys[Slot.AUTHENTICATION].write_public(home, "other")
    pcscd.slot.swap(other)
    eventually(lambda: listed(working_agent, others), "the other card is listed")
    longest = 0.0

    for swap in range(SWAPS):
        now_in, key, gone = (card, public, others) if swap % 2 == 0 else (other, others, public)
        pcscd.slot.swap(now_in)
        pcscd.await_present()
        back = time.monotonic()
        eventually(
            lambda key=key, gone=gone: listed(working_agent, key) and not listed(working_agent, gone),
            f"swap {swap} was noticed",
        )
        longest = max(longest, time.monotonic() - back)

    assert longest < NEVER_OUT_FOR
    assert (card.verifies, other.verifies) == (1, 0)


def test_a_listing_right_after_a_card_returns_has_its_keys(
    working_agent: Agent, pcscd: Pcscd, card: Card, public: Path
) -> None:
    """Who plugs it in and calls ssh is quicker than a module that reads it."""
    card.latency = 0.03
    for _ in range(3):
        pcscd.slot.remove()
        eventually(lambda: not listed(working_agent, public), "it is out")
        pcscd.slot.insert(card)
        pcscd.await_present()
        time.sleep(0.2)  # the agent hears of it at the same time as we do, and reads it for much longer
        assert listed(working_agent, public), working_agent.log
    assert card.wrong_pins == 0


@pytest.mark.parametrize("out_for", [0.0, 1.0], ids=["exchanged at once", "out for a second"])
def test_a_card_pulled_in_the_middle_of_a_signature_signs_soon_after_its_return(
    out_for: float, working_agent: Agent, pcscd: Pcscd, card: Card, public: Path
) -> None:
    """Whatever the module makes of it: OpenSC may try again and again, or never return."""
    for number in range(1, 4):
        begun, card.needs_touch = card.signatures_begun, True
        with ThreadPoolExecutor() as clients:
            signing = clients.submit(working_agent.ssh_add, "-T", public)
            card.await_signature(begun + 1)
            pcscd.slot.remove()
            card.needs_touch = False
            time.sleep(out_for)
            pcscd.slot.insert(card)
            pcscd.await_present()
            back = time.monotonic()
            done = working_agent.ssh_add("-T", public)
            assert done.status == 0, working_agent.log
            assert time.monotonic() - back < NEVER_OUT_FOR, (number, working_agent.log)
            signing.result()
    assert card.wrong_pins == 0
