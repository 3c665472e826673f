"""Everyday use with nothing configured: a card is plugged in, found, asked for its PIN, and touched."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rigs.agent import Agent, StartAgent
from rigs.askpass import Askpass
from rigs.home import Home
from rigs.logind import Logind
from rigs.message_bus import MessageBus
from rigs.notifications import Notifications
from rigs.pcscd import OPENSC, Pcscd
from rigs.piv_card import PIN, Card
from rigs.terminal import eventually

REPLUG = Path(sys.executable).with_name("replug")


@pytest.fixture
def without_configuration(home: Home) -> None:
    """There is no configuration file: whatever modules p11-kit knows of this machine are served."""
    (home.folder / ".config" / "replug" / "config.toml").unlink()


@pytest.fixture
def bus(home: Home) -> Iterator[MessageBus]:
    """A message bus that is the session's and the machine's, for the agents of this home."""
    bus = MessageBus(home.folder)
    home.env |= {"DBUS_SESSION_BUS_ADDRESS": bus.address, "DBUS_SYSTEM_BUS_ADDRESS": bus.address}
    yield bus
    bus.stop()


@pytest.fixture
def desktop(bus: MessageBus) -> Iterator[Notifications]:
    """A desktop that shows notifications."""
    desktop = Notifications(bus.address)
    yield desktop
    desktop.stop()


@pytest.fixture
def logind(bus: MessageBus) -> Iterator[Logind]:
    """What tells of suspend and screen lock."""
    logind = Logind(bus.address)
    yield logind
    logind.stop()


def use(agent: Agent, public: Path) -> int:
    """The exit status of one signature."""
    return agent.ssh_add("-T", public).status


def lists(agent: Agent, public: Path) -> bool:
    """Whether ssh-add -L shows the key."""
    return " ".join(public.read_text().split()[:2]) in agent.ssh_add("-L").out


def card_status(agent: Agent) -> dict[str, Any]:
    """What `replug status` says of the card."""
    done = agent.run(REPLUG, "status", "--json")
    assert done.status == 0, done
    [token] = [token for token in json.loads(done.out)["tokens"] if token["keys"]]
    said: dict[str, Any] = token
    return said


@pytest.mark.usefixtures("without_configuration")
def test_with_nothing_configured(start_agent: StartAgent, pcscd: Pcscd, home: Home, askpass: Askpass) -> None:
    """Started before the card is there. The PIN is asked for once, when it is needed; then never again."""
    askpass.answers(PIN)
    agent = start_agent()
    assert agent.ssh_add("-l").status == 1

    card = Card()
    publics = [key.write_public(home, f"{slot:x}") for slot, key in card.keys.items()]
    pcscd.slot.insert(card)
    eventually(lambda: all(lists(agent, public) for public in publics), "the card's keys are listed", 20)
    assert (card.verifies, askpass.questions) == (0, [])

    public = publics[0]
    assert use(agent, public) == 0, agent.log
    assert (card.verifies, len(askpass.questions)) == (1, 1)
    for _ in range(2):
        pcscd.slot.remove()
        eventually(lambda: not lists(agent, public), "the key is gone from the list")
        pcscd.slot.insert(card)
        eventually(lambda: lists(agent, public), "the key is back in the list")
        assert use(agent, public) == 0, agent.log
    assert (card.wrong_pins, len(askpass.questions)) == (0, 1)


@pytest.mark.usefixtures("without_configuration")
def test_a_card_that_is_there_is_in_the_first_listing(
    start_agent: StartAgent, card: Card, public: Path
) -> None:
    """The first `ssh` after login may have started the agent, and takes the keys it is told for all."""
    agent = start_agent()

    assert lists(agent, public), agent.log


@pytest.mark.usefixtures("without_configuration")
def test_the_module_added_by_hand_too(
    start_agent: StartAgent, card: Card, public: Path, always: Path, askpass: Askpass
) -> None:
    """Found and named it is one module: one token, read once, no try lost, and removed for good."""
    askpass.answers(PIN)
    agent = start_agent()
    assert lists(agent, public), agent.log
    assert agent.add_provider(OPENSC, PIN).status == 0, agent.log

    assert len(agent.ssh_add("-l").lines) == 3
    done = agent.run(REPLUG, "status", "--json")
    assert len(json.loads(done.out)["tokens"]) == 1
    for _ in range(2):
        assert [use(agent, public), use(agent, always)] == [0, 0], agent.log
    assert (card.wrong_pins, askpass.questions) == (0, [])

    assert agent.ssh_add("-e", OPENSC).status == 0
    assert agent.ssh_add("-l").status == 1
    assert use(agent, public) == 1


def test_a_touch_is_asked_for_on_the_desktop(
    home: Home, start_agent: StartAgent, card: Card, public: Path, desktop: Notifications
) -> None:
    """While the card waits for it, and no longer."""
    home.configure('modules = []\ntouch_notification = "1s"')
    agent = start_agent()
    assert agent.add_provider(OPENSC, PIN).status == 0, agent.log
    assert use(agent, public) == 0, agent.log

    card.needs_touch = True
    with ThreadPoolExecutor() as clients:
        signing = clients.submit(use, agent, public)
        [notice] = desktop.await_notices(1)
        assert "For: ssh-add (pid" in notice.body
        assert not signing.done()
        card.touch()
        assert signing.result() == 0, agent.log
    assert desktop.await_notices(0) == []
    assert len(desktop.withdrawn) == 1


@pytest.mark.parametrize("event", ["suspend", "screen-lock"])
def test_a_pin_is_forgotten_on_suspend_and_screen_lock(
    event: str,
    home: Home,
    start_agent: StartAgent,
    card: Card,
    public: Path,
    askpass: Askpass,
    logind: Logind,
) -> None:
    home.configure(f'modules = ["{OPENSC}"]\nforget_pin_on = ["{event}"]')
    askpass.answers(PIN)
    agent = start_agent()
    assert use(agent, public) == 0, agent.log
    assert use(agent, public) == 0, agent.log
    assert card_status(agent)["pin_remembered"]
    assert len(askpass.questions) == 1
    eventually(lambda: "listening for screen lock and suspend" in agent.log, "the agent listens")

    if event == "suspend":
        logind.prepare_for_sleep(True)
        eventually(lambda: logind.held == 0, "the machine may sleep")
        logind.prepare_for_sleep(False)
    else:
        logind.tell(logind.mine, "Lock")
    eventually(lambda: not card_status(agent)["pin_remembered"], "the PIN is forgotten")
    assert lists(agent, public)

    assert use(agent, public) == 0, agent.log
    assert (card.wrong_pins, len(askpass.questions)) == (0, 2)
