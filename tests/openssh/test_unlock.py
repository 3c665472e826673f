"""`replug unlock`: the PIN is typed once, before anybody needs it."""

from __future__ import annotations

import sys
from pathlib import Path

from rigs.agent import PIN_PROMPT, StartAgent
from rigs.home import Home
from rigs.softhsm import MODULE, PIN, Token

REPLUG = Path(sys.executable).with_name("replug")


def test_the_pin_is_remembered(home: Home, start_agent: StartAgent) -> None:
    token = Token(home, "ca")
    token.add("p256")
    home.configure(f'modules = ["{MODULE}"]')
    agent = start_agent()
    assert agent.ssh_add("-T", token.public("p256")).status == 1

    wrong = agent.run(REPLUG, "unlock", typing=[(PIN_PROMPT, "000000")])
    assert wrong.status == 1
    assert "the agent refused: " in wrong.out + wrong.err
    assert "the PIN is wrong" in wrong.out + wrong.err
    right = agent.run(REPLUG, "unlock", "ca", typing=[(PIN_PROMPT, PIN)])
    assert (right.status, "The PIN is remembered." in right.out) == (0, True), (right, agent.log)
    assert agent.ssh_add("-T", token.public("p256")).status == 0

    again = agent.run(REPLUG, "unlock")
    assert again.status == 0
    assert again.err == 'replug: token "ca": the PIN is remembered already\n'
    other = agent.run(REPLUG, "unlock", "other")
    assert (other.status, other.err) == (1, 'replug: the agent knows no token "other"\n')
