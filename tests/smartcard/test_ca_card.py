"""A CA key in slot 9c of a PIV card, which wants the PIN right before each signature, under a `[[ca]]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from rigs.agent import Agent, StartAgent
from rigs.askpass import Askpass
from rigs.home import Home
from rigs.key_files import make_key, public_of
from rigs.pcscd import Pcscd
from rigs.piv_card import PIN, Card
from rigs.sshd import USER, Server
from rigs.terminal import Done

REPLUG = Path(sys.executable).with_name("replug")
GENERAL_AUTHENTICATE = 0x87
RULE = """
modules = ["{module}"]

[[ca]]
key = "{key}"
max_validity = "10m"
principals = ["{user}"]
"""


@pytest.fixture
def ca_agent(home: Home, start_agent: StartAgent, card: Card, module: Path, always: Path) -> Agent:
    """An agent that finds the card by itself, with a rule for the key in 9c."""
    key = home.run("ssh-keygen", "-l", "-f", always).out.split()[1]
    home.configure(RULE.format(module=module, key=key, user=USER))
    return start_agent()


@pytest.fixture
def user_key(home: Home) -> Path:
    return make_key(home, "user")


def issue(agent: Agent, key: Path, *options: str) -> Done:
    return agent.run(REPLUG, "ca", "issue", *options, public_of(key))


def serials(agent: Agent) -> list[int]:
    return [
        json.loads(line)["serial"] for line in agent.run(REPLUG, "ca", "issued", "--json").out.splitlines()
    ]


def test_the_pin_is_asked_for_once(
    ca_agent: Agent, pcscd: Pcscd, card: Card, always: Path, home: Home, user_key: Path, askpass: Askpass
) -> None:
    """Also when the card was out: the next certificate is signed without a question, and logs in."""
    askpass.answers(PIN)
    server = Server(home, f"TrustedUserCAKeys {always}", "AuthorizedKeysFile none")

    for number in ("1", "2"):
        done = issue(ca_agent, user_key, "-z", number)
        assert done.status == 0, (done, ca_agent.log)
    pcscd.slot.remove()
    pcscd.slot.insert(card)
    pcscd.await_present()
    done = issue(ca_agent, user_key, "-z", "3")

    assert done.status == 0, (done, ca_agent.log)
    done = server.login(ca_agent, "-i", user_key, "-o", "IdentitiesOnly=yes")
    assert done.status == 0, (done, server.log)
    assert serials(ca_agent) == [1, 2, 3]
    assert len(askpass.questions) == 1
    assert "user certificate" in askpass.text
    assert (card.signatures, card.wrong_pins) == (3, 0)


def test_what_the_rule_forbids_costs_no_question(
    ca_agent: Agent, card: Card, user_key: Path, askpass: Askpass
) -> None:
    assert issue(ca_agent, user_key, "-V", "+1w").status == 1
    assert issue(ca_agent, user_key, "-n", "somebody").status == 1
    assert (askpass.questions, card.verifies, card.signatures) == ([], 0, 0)


def test_a_card_that_is_out_is_named(
    ca_agent: Agent, pcscd: Pcscd, card: Card, always: Path, user_key: Path, askpass: Askpass
) -> None:
    askpass.answers(PIN)
    assert issue(ca_agent, user_key, "-z", "1").status == 0, ca_agent.log
    pcscd.slot.remove()
    pcscd.await_empty()

    done = issue(ca_agent, user_key)

    assert done.status == 1
    assert "plug it in" in done.err or "is in no slot" in done.err
    # What servers are to trust is known still.
    assert always.read_text().split()[1] in ca_agent.run(REPLUG, "ca", "trust").out
    assert serials(ca_agent) == [1]


def test_a_card_that_is_pulled_while_it_signs_leaves_no_record(
    ca_agent: Agent, pcscd: Pcscd, card: Card, user_key: Path, askpass: Askpass
) -> None:
    askpass.answers(PIN)
    assert issue(ca_agent, user_key, "-z", "1").status == 0, ca_agent.log
    user_key.with_name("user-cert.pub").unlink()
    pcscd.slot.at_next(GENERAL_AUTHENTICATE, pcscd.slot.remove)

    assert issue(ca_agent, user_key, "-z", "2").status == 1

    assert not user_key.with_name("user-cert.pub").exists()
    assert serials(ca_agent) == [1]
    pcscd.slot.insert(card)
    pcscd.await_present()
    assert issue(ca_agent, user_key, "-z", "3").status == 0, ca_agent.log
    assert serials(ca_agent) == [1, 3]
    assert (len(askpass.questions), card.wrong_pins) == (1, 0)
