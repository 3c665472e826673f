"""What is left of a card's PIN in the memory of the agent and of the modules' workers (docs/security.md)."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

import pytest
from rigs import memory
from rigs.agent import Agent, StartAgent
from rigs.askpass import Askpass
from rigs.home import Home
from rigs.pcscd import Pcscd
from rigs.piv_card import Card
from rigs.piv_keys import Slot
from rigs.root import may_be_root
from rigs.terminal import eventually

REPLUG = Path(sys.executable).with_name("replug")


def remembered_by(agent: Agent, pin: str) -> tuple[bool, bool]:
    """Whether the PIN is in the memory of the agent, and of one of the processes it started."""
    sought = {"PIN": memory.pieces_of_bytes(pin.encode())}
    return bool(memory.found([agent.pid], sought)), bool(memory.found(agent.children(), sought))


@pytest.mark.parametrize("how", ["given", "typed"])
def test_a_pin_is_gone_when_locked_or_forgotten(
    start_agent: StartAgent, pcscd: Pcscd, module: Path, askpass: Askpass, home: Home, how: str
) -> None:
    if not may_be_root():
        pytest.skip("needs root, or sudo without a password: it reads the memory of processes that refuse it")
    pin = f"{secrets.randbelow(10**8):08}"
    card = Card(pin=pin)
    pcscd.slot.insert(card)
    pcscd.await_present()
    public = card.keys[Slot.AUTHENTICATION].write_public(home, "9a")
    agent = start_agent()
    assert agent.add_provider(module, pin if how == "given" else "").status == 0, agent.log
    if how == "typed":
        askpass.answers(pin)
    assert agent.ssh_add("-T", public).status == 0, agent.log
    askpass.answers(None)
    # That the modules keep it, and that it is found there, shows that it would be found elsewhere.
    assert remembered_by(agent, pin) == (True, True)

    passphrase = "Enter lock password: "
    assert agent.ssh_add("-x", typing=[(passphrase, "sesame"), ("Again: ", "sesame")]).status == 0
    eventually(lambda: remembered_by(agent, pin) == (False, False), "the end of all traces", within=60)
    assert agent.ssh_add("-X", typing=[(passphrase, "sesame")]).status == 0
    assert agent.ssh_add("-T", public).status == 0, agent.log
    assert remembered_by(agent, pin) == (True, True)

    assert agent.run(REPLUG, "forget").status == 0
    eventually(lambda: remembered_by(agent, pin) == (False, False), "the end of all traces", within=60)
