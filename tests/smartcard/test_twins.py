"""Two cards at a time: cards that are alike, one key on both, and a card that moves to another reader."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from rigs.agent import Agent
from rigs.askpass import Askpass
from rigs.home import Home
from rigs.pcscd import Pcscd
from rigs.piv_card import PIN, Card
from rigs.piv_keys import Algorithm, Key, Slot
from rigs.terminal import eventually

REPLUG = Path(sys.executable).with_name("replug")
OTHER_PIN = "654321"
_AS_FAST_AS_A_HAND = 0.3  # seconds


@pytest.fixture
def twin(card: Card, pcscd: Pcscd) -> Card:
    """A card in the reader's other slot that differs from `card` in nothing but keys and PIN."""
    twin = Card(serial=card.serial, pin=OTHER_PIN)
    pcscd.slot2.insert(twin)
    pcscd.slot2.await_power()
    return twin


def listed(agent: Agent, public: Path) -> bool:
    return public.read_text().split()[1] in agent.ssh_add("-L").out


def sign(agent: Agent, public: Path) -> None:
    done = agent.ssh_add("-T", public)
    assert done.status == 0, f"{done}\n{agent.log}"


def test_cards_that_are_alike_are_two_tokens_with_a_pin_each(
    agent: Agent,
    pcscd: Pcscd,
    card: Card,
    twin: Card,
    module: Path,
    public: Path,
    home: Home,
    askpass: Askpass,
) -> None:
    twins = twin.keys[Slot.AUTHENTICATION].write_public(home, "twin")
    # Which of them the PIN is for nobody knows, so it is sent to none.
    assert agent.add_provider(module, PIN).status == 0, agent.log
    assert listed(agent, public)
    assert listed(agent, twins)
    assert (card.verifies, twin.verifies) == (0, 0)

    for key, pin in ((public, PIN), (twins, OTHER_PIN)):
        askpass.answers(pin)
        sign(agent, key)
    text = agent.run(REPLUG, "status").out
    assert text.count("another token has the same name and serial") == 2, text
    tokens = json.loads(agent.run(REPLUG, "status", "--json").out)["tokens"]
    assert [token["copy"] for token in tokens] == [0, 1]

    # They change places.
    pcscd.slot.remove()
    pcscd.slot2.remove()
    pcscd.slot.insert(twin)
    pcscd.slot2.insert(card)
    pcscd.slot.await_power()
    pcscd.slot2.await_power()
    eventually(lambda: listed(agent, public) and listed(agent, twins), "both are back")
    for key in (public, twins):
        sign(agent, key)
    assert (card.wrong_pins, twin.wrong_pins, len(askpass.questions)) == (0, 0, 2)

    pcscd.slot.remove()
    eventually(lambda: not listed(agent, twins), "one is out")
    sign(agent, public)
    assert (card.wrong_pins, len(askpass.questions)) == (0, 2)


def test_one_key_on_two_cards_signs_with_the_one_that_is_in(
    agent: Agent, pcscd: Pcscd, card: Card, module: Path, public: Path, askpass: Askpass
) -> None:
    key = Key.new(Algorithm.P256, "backup", card.keys[Slot.AUTHENTICATION].private)
    backup = Card(serial=5004321, keys={Slot.AUTHENTICATION: key}, pin=OTHER_PIN)
    pcscd.slot2.insert(backup)
    pcscd.slot2.await_power()
    assert agent.add_provider(module, "").status == 0, agent.log
    assert agent.ssh_add("-L").out.count(public.read_text().split()[1]) == 1

    pcscd.slot.remove()
    pcscd.await_empty()
    askpass.answers(OTHER_PIN)
    sign(agent, public)
    pcscd.slot.insert(card)
    pcscd.await_present()
    pcscd.slot2.remove()
    askpass.answers(PIN)
    sign(agent, public)
    assert (backup.signatures, card.signatures) == (1, 1)
    assert (card.wrong_pins, backup.wrong_pins, len(askpass.questions)) == (0, 0, 2)


def test_a_card_that_moves_to_another_reader_is_the_same_token(
    working_agent: Agent, pcscd: Pcscd, card: Card, public: Path, askpass: Askpass
) -> None:
    for there in (pcscd.slot2, pcscd.slot, pcscd.slot2):
        (pcscd.slot if there is pcscd.slot2 else pcscd.slot2).remove()
        time.sleep(_AS_FAST_AS_A_HAND)  # a scan that is under way would see it in both
        there.insert(card)
        there.await_power()
        eventually(lambda: listed(working_agent, public), "the card was found")
        sign(working_agent, public)
    assert (card.verifies, card.wrong_pins, askpass.questions) == (4, 0, [])
