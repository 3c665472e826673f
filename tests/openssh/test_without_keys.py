"""A token without keys: it is said to be one, and the command that is shown makes one."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from rigs.agent import Agent, StartAgent
from rigs.askpass import Askpass
from rigs.doctor import Diagnosis
from rigs.home import Home
from rigs.softhsm import MODULE, PIN, Token
from rigs.terminal import eventually

REPLUG = Path(sys.executable).with_name("replug")
NOT_YET = "it shows no keys without a login, and may hold none yet"


@pytest.fixture
def token(home: Home) -> Token:
    """A new token."""
    return Token(home)


@pytest.fixture
def agent(home: Home, token: Token, askpass: Askpass, start_agent: StartAgent) -> Agent:
    """An agent that serves it."""
    home.configure(f'modules = ["{MODULE}"]')
    agent = start_agent(env=askpass.env)
    assert agent.ssh_add("-l").status == 1
    return agent


def said(agent: Agent) -> dict[str, Any]:
    """What `replug status` says of the token."""
    [token] = json.loads(agent.run(REPLUG, "status", "--json").out)["tokens"]
    found: dict[str, Any] = token
    return found


def test_from_no_key_to_a_signature(agent: Agent, home: Home, askpass: Askpass) -> None:
    assert said(agent)["without_keys"] == NOT_YET
    shown = agent.run(REPLUG, "status").out.splitlines()
    command = said(agent)["first_key"]
    assert [line.strip(" ->\N{RIGHTWARDS ARROW}") for line in shown[-2:]] == [NOT_YET, command]
    program, *arguments = shlex.split(command)
    assert program == "replug"

    made = agent.run(REPLUG, *arguments, typing=[("PIN for token", PIN)])
    assert made.status == 0, made
    assert said(agent)["without_keys"] == ""

    assert made.out == agent.ssh_add("-L").out
    public = home.write("new.pub", made.out)
    askpass.answers(PIN)
    assert agent.ssh_add("-T", public).status == 0, agent.log
    assert len(askpass.questions) == 1


def test_doctor_does_not_ask_for_the_token_that_is_in(agent: Agent, home: Home) -> None:
    found = Diagnosis(home, env=agent.env)
    assert found["keys"].fix == "make one on the token: see the findings on it below"
    assert found["token"].outcome == "warn"
    assert found["token"].reason.endswith(NOT_YET)
    assert found["token"].fix == said(agent)["first_key"]


def test_ssh_add_says_it_too(agent: Agent) -> None:
    """With the PIN it is certain."""
    assert agent.add_provider(MODULE, PIN).status == 1
    assert "no key that SSH can use is visible" in agent.log
    assert said(agent)["without_keys"] == "it holds no keys for ssh yet"
    explained = " ".join(agent.run(REPLUG, "explain").out.split())
    assert re.search(r"replug keygen 'pkcs11:token=work\?module-path=/\S+'", explained), explained


def test_a_token_that_gets_its_keys_elsewhere_is_seen_after_a_login(
    agent: Agent, token: Token, askpass: Askpass
) -> None:
    """Two keys made while the agent runs: a refresh shows both, a login what was made after that."""
    token.add("p256")
    assert agent.run(REPLUG, "refresh").status == 0
    token.add("ed25519")
    askpass.answers(PIN)
    assert agent.ssh_add("-T", token.public("p256")).status == 0, agent.log
    eventually(lambda: len(agent.ssh_add("-l").lines) == 2, "the new key is listed")
