"""Where PINs go, by the cards' own count: never to a stranger, never twice when they were wrong."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rigs.agent import Agent
from rigs.askpass import Askpass
from rigs.home import Home
from rigs.pcscd import OPENSC, YKCS11, Pcscd
from rigs.piv_card import PIN, TRIES, Card
from rigs.piv_keys import Algorithm, Key, Slot
from rigs.terminal import Done, eventually

NEW_PIN = "876543"
WRONG = "654321"


def use(agent: Agent, public: Path) -> Done:
    """One signature with the key."""
    return agent.ssh_add("-T", public)


def replug(pcscd: Pcscd) -> None:
    """Pulls the card and puts it back: it has forgotten that the PIN was verified."""
    pcscd.slot.insert(pcscd.slot.remove())
    pcscd.await_present()


@pytest.mark.parametrize("noticed", [True, False])
def test_another_card_in_the_same_reader_never_gets_the_pin(
    noticed: bool,
    working_agent: Agent,
    pcscd: Pcscd,
    card: Card,
    public: Path,
    always: Path,
    askpass: Askpass,
) -> None:
    other = Card(serial=5004321)
    askpass.answers(WRONG)
    pcscd.slot.swap(other)
    if noticed:
        pcscd.await_present()

    for key in (public, always, public):
        assert use(working_agent, key).status == 1
    assert (other.verifies, askpass.questions) == (0, [])

    pcscd.slot.swap(card)
    pcscd.await_present()
    key = public.read_text().split()[1]
    # The agent may be told of it a moment later than the test is.
    eventually(lambda: key in working_agent.ssh_add("-L").out, "its keys are listed again", within=2)
    assert use(working_agent, public).status == 0, working_agent.log
    assert use(working_agent, always).status == 0, working_agent.log
    assert (other.verifies, card.wrong_pins, askpass.questions) == (0, 0, [])


def test_a_card_with_the_same_serial_but_other_keys_is_another_card(
    working_agent: Agent, pcscd: Pcscd, home: Home, public: Path, askpass: Askpass
) -> None:
    """As after a reset of the card, when its tries are not ours to spend."""
    stranger = Card(pin=NEW_PIN)
    new = stranger.keys[Slot.AUTHENTICATION].write_public(home, "new")
    pcscd.slot.swap(stranger)
    pcscd.await_present()

    assert use(working_agent, public).status == 1
    eventually(lambda: new.read_text().split()[1] in working_agent.ssh_add("-L").out, "its keys are listed")
    assert use(working_agent, new).status == 1
    assert (stranger.verifies, len(askpass.questions)) == (0, 1)

    askpass.answers(NEW_PIN)
    assert use(working_agent, new).status == 0, working_agent.log
    assert (stranger.verifies, stranger.wrong_pins) == (1, 0)


def test_a_card_swapped_during_the_question_does_not_get_the_answer(
    agent: Agent, pcscd: Pcscd, card: Card, module: Path, public: Path, askpass: Askpass
) -> None:
    assert agent.add_provider(module, "").status == 0, agent.log
    other = Card(serial=5004321)
    askpass.answers_when_told()

    with ThreadPoolExecutor() as pool:
        using = pool.submit(use, agent, public)
        eventually(lambda: askpass.questions, "the PIN is asked for")
        pcscd.slot.swap(other)
        pcscd.await_present()
        askpass.answer(PIN)

    assert using.result().status == 1
    assert (other.verifies, card.verifies) == (0, 0)


def test_a_pin_changed_elsewhere_costs_one_try_and_one_question(
    working_agent: Agent, pcscd: Pcscd, card: Card, public: Path, askpass: Askpass
) -> None:
    card.pin = NEW_PIN
    replug(pcscd)
    askpass.answers(NEW_PIN)

    assert use(working_agent, public).status == 0, working_agent.log
    assert (card.wrong_pins, card.tries_left, len(askpass.questions)) == (1, 3, 1)
    assert "was rejected" in askpass.text

    replug(pcscd)
    assert use(working_agent, public).status == 0, working_agent.log
    assert (card.wrong_pins, len(askpass.questions)) == (1, 1)


def test_a_pin_changed_elsewhere_costs_one_try_by_two_modules_together(
    agent: Agent, pcscd: Pcscd, card: Card, public: Path
) -> None:
    """They call the card by different names, and each has the PIN."""
    for module in (OPENSC, YKCS11):
        assert agent.add_provider(module, PIN).status == 0, agent.log
    card.pin = NEW_PIN
    replug(pcscd)

    for _ in range(3):
        assert use(agent, public).status == 1

    assert (card.verifies, card.wrong_pins) == (3, 1)


def test_a_rejected_pin_is_not_sent_again(
    working_agent: Agent, pcscd: Pcscd, card: Card, public: Path, always: Path, askpass: Askpass
) -> None:
    card.pin = NEW_PIN
    replug(pcscd)

    for key in (public, always, public):
        assert use(working_agent, key).status == 1

    assert (card.verifies, card.wrong_pins) == (2, 1)
    assert len(askpass.questions) >= 2  # a third only after the pause for declined ones


def test_a_pin_changed_elsewhere_costs_a_9c_key_one_try_too(
    working_agent: Agent, card: Card, always: Path, askpass: Askpass
) -> None:
    """The login for each signature is the only one here: the session is still logged in."""
    card.pin = NEW_PIN
    askpass.answers(NEW_PIN)

    assert use(working_agent, always).status == 0, working_agent.log

    assert (card.wrong_pins, card.tries_left, len(askpass.questions)) == (1, 3, 1)


def test_a_9c_key_signs_with_the_remembered_pin(
    working_agent: Agent, card: Card, always: Path, askpass: Askpass
) -> None:
    for _ in range(3):
        assert use(working_agent, always).status == 0, working_agent.log

    # The login when it was added, and one for each signature.
    assert (card.verifies, card.wrong_pins, card.signatures, askpass.questions) == (4, 0, 3, [])


def test_clients_that_wait_share_one_login(
    working_agent: Agent, pcscd: Pcscd, card: Card, public: Path, askpass: Askpass
) -> None:
    replug(pcscd)

    with ThreadPoolExecutor() as clients:
        uses = list(clients.map(lambda _: use(working_agent, public), range(4)))

    assert [done.status for done in uses] == [0] * 4, (uses, working_agent.log)
    assert (card.verifies, card.wrong_pins, askpass.questions) == (2, 0, [])


def test_clients_that_wait_share_one_question(
    agent: Agent, card: Card, module: Path, public: Path, askpass: Askpass
) -> None:
    assert agent.add_provider(module, "").status == 0, agent.log
    askpass.answers(PIN)

    with ThreadPoolExecutor() as clients:
        uses = list(clients.map(lambda _: use(agent, public), range(4)))

    assert [done.status for done in uses] == [0] * 4, (uses, agent.log)
    assert (card.verifies, card.wrong_pins, len(askpass.questions)) == (1, 0, 1)


def test_a_wrong_pin_costs_one_try_by_whatever_way_it_is_entered_again(
    agent: Agent, card: Card, public: Path, askpass: Askpass
) -> None:
    for _ in range(2):
        assert agent.add_provider(OPENSC, WRONG).status == 1
    assert "the wrong PIN was entered again, and not sent again" in agent.log
    askpass.answers(WRONG)
    for module in (OPENSC, YKCS11):
        assert agent.add_provider(module, "").status == 0, agent.log
        assert use(agent, public).status == 1
        assert agent.ssh_add("-D").status == 0
    assert (card.wrong_pins, card.verifies) == (1, 1)
    # The right one is nobody's mistake.
    assert agent.add_provider(YKCS11, PIN).status == 0, agent.log
    assert card.tries_left == TRIES


def test_the_last_try_is_for_a_pin_typed_at_a_warning(
    working_agent: Agent, pcscd: Pcscd, card: Card, public: Path, askpass: Askpass
) -> None:
    assert [pcscd.send_pin(WRONG) for _ in range(2)] == ["63c2", "63c1"]
    verifies = card.verifies

    assert use(working_agent, public).status == 1
    assert (card.verifies, card.tries_left) == (verifies, 1)
    assert "LAST TRY" in askpass.text

    askpass.answers(PIN)
    assert use(working_agent, public).status == 0, working_agent.log
    assert (card.verifies, card.tries_left, len(askpass.questions)) == (verifies + 1, 3, 2)


def test_a_locked_card_is_sent_no_pin(
    working_agent: Agent, pcscd: Pcscd, card: Card, public: Path, always: Path, askpass: Askpass
) -> None:
    assert [pcscd.send_pin(WRONG) for _ in range(3)] == ["63c2", "63c1", "63c0"]
    verifies = card.verifies
    askpass.answers(PIN)

    for key in (public, always):
        assert use(working_agent, key).status == 1

    assert (card.verifies, askpass.questions) == (verifies, [])
    assert "PIN is locked" in working_agent.log


def test_a_key_on_two_cards_signs_with_whichever_is_there(
    agent: Agent, pcscd: Pcscd, card: Card, module: Path, home: Home
) -> None:
    """One person's key in two cards, each with a PIN of its own."""
    key = card.keys[Slot.AUTHENTICATION]
    public = key.write_public(home, "shared")
    twin = Card(
        serial=5004321,
        keys={Slot.AUTHENTICATION: Key.new(Algorithm.P256, "twin", key.private)},
        pin=NEW_PIN,
    )
    assert agent.add_provider(module, PIN).status == 0, agent.log
    pcscd.slot.swap(twin)
    pcscd.await_present()
    assert agent.add_provider(module, NEW_PIN).status == 0, agent.log

    for present in (card, twin, card):
        pcscd.slot.swap(present)
        pcscd.await_present()
        signatures = present.signatures
        assert use(agent, public).status == 0, agent.log
        assert present.signatures == signatures + 1

    pcscd.slot2.insert(twin)
    pcscd.slot2.await_power()
    assert use(agent, public).status == 0, agent.log
    pcscd.slot.remove()
    assert use(agent, public).status == 0, agent.log
    assert (card.wrong_pins, twin.wrong_pins) == (0, 0)
    assert agent.ssh_add("-L").out.count(public.read_text().split()[1]) == 1
