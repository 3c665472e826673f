"""The promise: pull the token out, put it back, and the next ssh works."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rigs.agent import Agent, StartAgent
from rigs.askpass import Askpass
from rigs.home import Home
from rigs.pcscd import OPENSC, Pcscd
from rigs.piv_card import PIN, Card
from rigs.piv_keys import Algorithm, Slot
from rigs.sshd import USER, Server, only
from rigs.terminal import Done, eventually

SIGNING_SLOTS = [Slot.AUTHENTICATION, Slot.SIGNATURE, Slot.CARD_AUTHENTICATION]
REPLUG = Path(sys.executable).with_name("replug")
TOUCH_TIMEOUT = 12.5  # seconds; YubiKeys wait longer
HELD = 6.0  # seconds for which another program has the card for itself
AT_ONCE = 5.0  # seconds, for a refusal that needs no card, also on a busy machine


@pytest.fixture(params=SIGNING_SLOTS, ids=["9a", "9c", "9e"])
def slot(request: pytest.FixtureRequest) -> Slot:
    """Each of the slots that sign."""
    chosen: Slot = request.param
    return chosen


def use(agent: Agent, public: Path) -> Done:
    """One signature with the key."""
    return agent.ssh_add("-T", public)


def lists(agent: Agent, public: Path) -> bool:
    """Whether ssh-add -L shows the key."""
    return " ".join(public.read_text().split()[:2]) in agent.ssh_add("-L").out


def status(agent: Agent) -> dict[str, Any]:
    """What `replug status` says."""
    done = agent.run(REPLUG, "status", "--json")
    assert done.status == 0, done
    said: dict[str, Any] = json.loads(done.out)
    return said


def test_pulled_and_put_back_the_next_ssh_works(
    slot: Slot,
    module: Path,
    working_agent: Agent,
    pcscd: Pcscd,
    card: Card,
    home: Home,
    server: Server,
    askpass: Askpass,
) -> None:
    agent, public = working_agent, card.keys[slot].write_public(home, "key")
    server.authorize(public)
    assert server.login(agent, *only(public)).out == f"in {USER}\n", agent.log
    verifies = card.verifies

    pcscd.slot.remove()
    eventually(lambda: not lists(agent, public), "the key is gone from the list")
    assert agent.ssh_add("-l").out == "The agent has no identities.\n"
    started = time.monotonic()
    assert use(agent, public).status == 1
    assert time.monotonic() - started < AT_ONCE
    [token], [*_, refusal] = status(agent)["tokens"], status(agent)["refusals"]
    assert (token["state"], refusal["request"]) == ("absent", "SignRequest")
    assert "is in no slot" in refusal["reason"]
    assert refusal["next_step"] == "plug it in"

    pcscd.slot.insert(card)
    eventually(lambda: lists(agent, public), "the key is back in the list")
    assert card.verifies == verifies
    assert server.login(agent, *only(public)).out == f"in {USER}\n", agent.log

    # A key of 9c wants the PIN for its signature besides the login, one of 9e wants none, but libykcs11 hides
    # all private keys until login.
    without_login = slot is Slot.CARD_AUTHENTICATION and module == OPENSC
    assert card.verifies - verifies == (2 if slot is Slot.SIGNATURE else 0 if without_login else 1)
    assert (card.wrong_pins, askpass.questions) == (0, [])


def test_the_keys_leave_and_return_by_themselves_as_often_as_the_card_does(
    working_agent: Agent, pcscd: Pcscd, card: Card, public: Path, askpass: Askpass
) -> None:
    agent, verifies = working_agent, card.verifies

    for cycle in range(3):
        pcscd.slot.remove()
        eventually(lambda: not lists(agent, public), "the key is gone from the list")
        pcscd.slot.insert(card)
        eventually(lambda: lists(agent, public), "the key is back in the list")
        assert use(agent, public).status == 0, (cycle, agent.log)

    assert (card.verifies - verifies, card.wrong_pins, askpass.questions) == (3, 0, [])


@pytest.mark.parametrize("blink", [0.0, 0.05])
def test_a_card_that_was_out_for_a_moment(
    blink: float, working_agent: Agent, pcscd: Pcscd, card: Card, public: Path
) -> None:
    pcscd.slot.remove()
    time.sleep(blink)
    pcscd.slot.insert(card)
    pcscd.await_present()

    assert use(working_agent, public).status == 0, working_agent.log
    assert (card.verifies, card.wrong_pins) == (2, 0)


def test_a_card_that_returns_in_the_place_of_another(
    working_agent: Agent, pcscd: Pcscd, card: Card, home: Home, public: Path
) -> None:
    """A module that has read the other one's keys must not take them for this one's."""
    other = Card(serial=5004321)
    others = other.keys[Slot.AUTHENTICATION].write_public(home, "other")

    for cycle in range(3):
        pcscd.slot.remove()
        eventually(lambda: not lists(working_agent, public), "the card is gone")
        pcscd.slot.insert(other)
        eventually(lambda: lists(working_agent, others), "the other card has been read")
        pcscd.slot.swap(card)
        pcscd.await_present()
        assert use(working_agent, public).status == 0, (cycle, working_agent.log)

    assert (card.verifies, card.wrong_pins, other.verifies) == (4, 0, 0)


def test_a_card_pulled_during_a_signature(
    working_agent: Agent, pcscd: Pcscd, card: Card, public: Path
) -> None:
    agent, card.needs_touch = working_agent, True
    with ThreadPoolExecutor() as pool:
        signing = pool.submit(use, agent, public)
        card.await_signature(1)
        pcscd.slot.remove()
    assert signing.result().status == 1
    card.needs_touch = False

    pcscd.slot.insert(card)
    pcscd.await_present()

    assert use(agent, public).status == 0, agent.log
    assert (card.verifies, card.wrong_pins) == (2, 0)


def restart_pcscd(pcscd: Pcscd, how: signal.Signals) -> None:
    pcscd.restart(how)
    pcscd.await_present()


@pytest.mark.parametrize(
    "disturb",
    [
        pytest.param(lambda pcscd, _: restart_pcscd(pcscd, signal.SIGTERM), id="pcscd-restarted"),
        pytest.param(lambda pcscd, _: restart_pcscd(pcscd, signal.SIGKILL), id="pcscd-killed"),
        pytest.param(lambda pcscd, _: pcscd.reset_card(), id="card-reset"),
        pytest.param(lambda pcscd, _: pcscd.select_other_application(), id="other-application"),
        pytest.param(lambda pcscd, _: pcscd.slot.at_next(0x87, pcscd.slot.lose_power), id="bad-contact"),
        pytest.param(lambda _, agent: kill_workers(agent), id="worker-killed"),
    ],
)
def test_what_others_do_costs_no_signature(
    disturb: Callable[[Pcscd, Agent], None],
    working_agent: Agent,
    pcscd: Pcscd,
    card: Card,
    public: Path,
    askpass: Askpass,
) -> None:
    disturb(pcscd, working_agent)

    assert use(working_agent, public).status == 0, working_agent.log
    assert (card.verifies, card.wrong_pins, askpass.questions) == (2, 0, [])


def kill_workers(agent: Agent) -> None:
    """Kills everything the agent has started."""
    for pid in reversed(agent.children()):  # children before what they end with
        os.kill(pid, signal.SIGKILL)


def test_a_login_that_another_program_ends_after_a_while_is_no_touch_that_was_not_given(
    working_agent: Agent, pcscd: Pcscd, card: Card, public: Path
) -> None:
    """Its transaction ends with the program, at which pcscd resets the card."""
    with ThreadPoolExecutor() as clients:
        with pcscd.held_by_another("transact"):
            signing = clients.submit(use, working_agent, public)
            time.sleep(HELD)
        assert signing.result().status == 0, working_agent.log
    assert (card.verifies, card.wrong_pins) == (2, 0)


def test_a_touch_that_is_not_given_is_not_asked_for_again(
    working_agent: Agent, card: Card, module: Path, public: Path
) -> None:
    """A card that refuses after a while wants its person, not another try."""
    card.needs_touch, card.touch_timeout = True, TOUCH_TIMEOUT

    assert use(working_agent, public).status == 1
    # OpenSC itself tries a second time.
    assert card.signatures_begun == (2 if module == OPENSC else 1)
    [*_, refusal] = status(working_agent)["refusals"]
    assert "not confirmed in time" in refusal["reason"], working_agent.log

    card.needs_touch = False
    assert use(working_agent, public).status == 0, working_agent.log
    assert card.wrong_pins == 0


def test_a_key_that_cannot_sign_does_not_come_back_with_the_card(
    start_agent: StartAgent, pcscd: Pcscd
) -> None:
    """OpenSC shows a 9d key until login (libykcs11 one for attestation): what a login has told holds."""
    card = Card(keys={Slot.AUTHENTICATION: Algorithm.P256, Slot.KEY_MANAGEMENT: Algorithm.P256})
    pcscd.slot.insert(card)
    pcscd.await_present()
    agent = start_agent()
    assert agent.add_provider(OPENSC, PIN).status == 0, agent.log
    listed = agent.ssh_add("-L").lines
    assert len(listed) == 1

    for _ in range(2):
        pcscd.slot.remove()
        eventually(lambda: agent.ssh_add("-l").status == 1, "the keys are gone")
        pcscd.slot.insert(card)
        eventually(lambda: agent.ssh_add("-l").status == 0, "the keys are back")
        assert agent.ssh_add("-L").lines == listed
