"""wait_for_token: what ssh is told of a card that is out, and a login that waits until it is back in."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rigs.agent import Agent, StartAgent
from rigs.askpass import Askpass
from rigs.home import Home
from rigs.message_bus import MessageBus
from rigs.notifications import Notifications
from rigs.pcscd import OPENSC, Pcscd
from rigs.piv_card import PIN, Card
from rigs.piv_keys import Algorithm, Slot
from rigs.sshd import USER, Server, only
from rigs.terminal import Done, eventually

REPLUG = Path(sys.executable).with_name("replug")


@pytest.fixture
def desktop(home: Home) -> Iterator[Notifications]:
    """A desktop that shows notifications."""
    bus = MessageBus(home.folder)
    home.env["DBUS_SESSION_BUS_ADDRESS"] = bus.address
    desktop = Notifications(bus.address)
    yield desktop
    desktop.stop()
    bus.stop()


@pytest.fixture
def waiting(home: Home, module: Path) -> None:
    """The module is configured, and requests wait for a card."""
    home.configure(f'modules = ["{module}"]\nwait_for_token = "60s"')


def state(agent: Agent) -> str:
    """What `replug status` says of the one token; empty if there is none."""
    tokens: list[dict[str, Any]] = json.loads(agent.run(REPLUG, "status", "--json").out)["tokens"]
    return str(tokens[0]["state"]) if tokens else ""


def remembered(home: Home) -> list[dict[str, Any]]:
    """The tokens in the agent's memory."""
    path = home.folder / ".local/state/replug/tokens.json"
    tokens: list[dict[str, Any]] = json.loads(path.read_text())["tokens"] if path.exists() else []
    return tokens


def listed(agent: Agent) -> list[str]:
    """The keys that ssh-add -L shows."""
    done = agent.ssh_add("-L")
    return [line.split()[1] for line in done.out.splitlines()] if done.status == 0 else []


def key_of(public: Path) -> str:
    return public.read_text().split()[1]


def login_while_out(
    agent: Agent, server: Server, pcscd: Pcscd, card: Card, desktop: Notifications, *options: str
) -> Done:
    """A login that begins without the card, which is plugged in when the desktop asks for it.

    ssh has a terminal, where the same is asked for.
    """
    ssh, said = server.ssh(*options, command="echo in $LOGNAME"), 'replug-agent: plug in token "'
    with ThreadPoolExecutor() as clients:
        login = clients.submit(agent.run, *ssh, typing=[(said, "")])
        try:
            [notice] = desktop.await_notices(1)
            begun = login.done()
        finally:
            pcscd.slot.insert(card)
        done = login.result()
    assert not begun
    assert desktop.await_notices(0) == []
    assert notice.summary.startswith('Plug in token "')
    assert "login at the host with key SHA256:" in notice.body
    assert "For: ssh (pid" in notice.body
    return done


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("identities_only", [False, True])
def test_ssh_waits_for_a_card_that_was_pulled(
    identities_only: bool,
    start_agent: StartAgent,
    pcscd: Pcscd,
    card: Card,
    public: Path,
    server: Server,
    desktop: Notifications,
    askpass: Askpass,
) -> None:
    askpass.answers(PIN)
    server.authorize(public)
    agent, options = start_agent(), only(public) if identities_only else ()
    assert server.login(agent, *options).out == f"in {USER}\n", agent.log
    pcscd.slot.remove()
    eventually(lambda: state(agent) == "absent", "the card is out")

    done = login_while_out(agent, server, pcscd, card, desktop, *options)

    assert done.out == f"in {USER}\n", (done, agent.log)
    assert (card.wrong_pins, len(askpass.questions)) == (0, 1)


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("identities_only", [False, True])
def test_ssh_waits_for_a_card_that_an_earlier_agent_has_seen(
    identities_only: bool,
    home: Home,
    start_agent: StartAgent,
    pcscd: Pcscd,
    card: Card,
    public: Path,
    server: Server,
    desktop: Notifications,
    askpass: Askpass,
) -> None:
    first = start_agent()
    eventually(lambda: key_of(public) in listed(first), "the card is read")
    eventually(lambda: remembered(home), "it is remembered")
    path = home.folder / ".local/state/replug/tokens.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    pcscd.slot.remove()
    pcscd.await_empty()

    askpass.answers(PIN)
    server.authorize(public)
    agent = start_agent()
    assert key_of(public) in listed(agent)
    assert state(agent) == "absent"
    options = only(public) if identities_only else ()
    done = login_while_out(agent, server, pcscd, card, desktop, *options)
    assert done.out == f"in {USER}\n", (done, agent.log)
    assert (card.wrong_pins, len(askpass.questions)) == (0, 1)
    assert len(listed(agent)) == len(card.keys)


@pytest.mark.usefixtures("waiting")
def test_a_remembered_card_that_returns_with_other_keys(
    home: Home, start_agent: StartAgent, pcscd: Pcscd, card: Card, public: Path
) -> None:
    """It was reset meanwhile: what it has now counts, and nothing of what it had."""
    first = start_agent()
    eventually(lambda: key_of(public) in listed(first), "the card is read")
    eventually(lambda: remembered(home), "it is remembered")
    pcscd.slot.remove()
    pcscd.await_empty()
    agent = start_agent()
    before = set(listed(agent))

    reset = Card(keys={Slot.AUTHENTICATION: Algorithm.P256})
    pcscd.slot.insert(reset)
    new = reset.keys[Slot.AUTHENTICATION].write_public(home, "new")
    eventually(lambda: listed(agent) == [key_of(new)], "the new key is listed, and no other")
    assert before
    assert "other keys" not in agent.log


def test_keys_of_cards_that_are_out_come_last(
    home: Home, start_agent: StartAgent, pcscd: Pcscd, card: Card, public: Path
) -> None:
    home.configure(f'modules = ["{OPENSC}"]\nwait_for_token = "60s"')
    agent = start_agent()
    eventually(lambda: key_of(public) in listed(agent), "the card is read")
    mine = listed(agent)
    other = Card(serial=5004321)
    others = other.keys[Slot.AUTHENTICATION].write_public(home, "other")
    pcscd.slot.remove()
    eventually(lambda: state(agent) == "absent", "the first card is out")
    pcscd.slot.insert(other)
    eventually(lambda: key_of(others) in listed(agent), "the other card is read")
    assert len(listed(agent)) == 2 * len(mine)
    assert listed(agent)[len(mine) :] == mine
    pcscd.slot.remove()
    pcscd.await_empty()
    pcscd.slot.insert(card)
    eventually(lambda: listed(agent)[: len(mine)] == mine, "the first card is back", 20)
    assert key_of(others) in listed(agent)[len(mine) :]


def test_without_it_nothing_is_listed_or_remembered(
    home: Home, start_agent: StartAgent, pcscd: Pcscd, card: Card, public: Path
) -> None:
    home.configure(f'modules = ["{OPENSC}"]')
    agent = start_agent()
    eventually(lambda: key_of(public) in listed(agent), "the card is read")
    pcscd.slot.remove()
    eventually(lambda: listed(agent) == [], "the keys are gone")
    assert remembered(home) == []
