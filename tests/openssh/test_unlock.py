"""`replug unlock`: the PIN is typed once, before anybody needs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rigs.agent import PIN_PROMPT, StartAgent
from rigs.askpass import Askpass
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


def test_what_the_keys_were_added_with_stays(home: Home, start_agent: StartAgent, askpass: Askpass) -> None:
    token = Token(home, "ca")
    token.add("p256")
    home.configure("modules = []")
    agent = start_agent(env=askpass.env)
    assert agent.ssh_add("-c", "-t", "3600", "-s", MODULE, typing=[(PIN_PROMPT, "")]).status == 0, agent.log

    none = agent.run(REPLUG, "unlock", typing=[(PIN_PROMPT, "")])
    assert (none.status, "no PIN was entered" in none.out + none.err) == (1, True), none
    done = agent.run(REPLUG, "unlock", typing=[(PIN_PROMPT, PIN)])
    assert (done.status, "The PIN is remembered." in done.out) == (0, True), (done, agent.log)
    assert agent.ssh_add("-T", token.public("p256")).status == 1
    assert askpass.text.startswith("Allow use of key p256?")
    [provider] = json.loads(agent.run(REPLUG, "status", "--json").out)["providers"]
    assert provider["name"] == str(MODULE)
