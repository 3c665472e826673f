"""Several tokens of one module: a key that is on two of them, and modules that are left alone."""

from __future__ import annotations

import time

import pytest
from rigs.agent import Agent, StartAgent
from rigs.faulty import Faulty
from rigs.home import Home
from rigs.softhsm import MODULE, PIN, Token
from rigs.terminal import eventually

QUIET = 10
"""Seconds in which a module whose token stays is not called; really it is a minute."""


@pytest.mark.parametrize("first", ["work", "backup"])
def test_a_key_on_two_tokens_signs_with_either(agent: Agent, home: Home, first: str) -> None:
    tokens = {"work": Token(home, "work"), "backup": Token(home, "backup")}
    public = tokens["work"].add("p256")
    tokens["backup"].add_same(tokens["work"], "p256")
    second = next(label for label in tokens if label != first)
    uris = {label: f"pkcs11:token={label}?module-path={MODULE}" for label in tokens}
    for label in (first, second):
        assert agent.add_provider(uris[label], PIN).status == 0, agent.log

    assert agent.ssh_add("-L").out.count(public.read_text().split()[1]) == 1
    assert agent.ssh_add("-T", public).status == 0, agent.log
    assert agent.ssh_add("-e", uris[first]).status == 0, agent.log
    assert agent.ssh_add("-T", public).status == 0, agent.log
    assert f'token="token \\"{second}\\"' in agent.log.splitlines()[-1], agent.log


def test_between_signatures_a_module_whose_token_stays_is_not_called(
    start_agent: StartAgent, home: Home, faulty: Faulty
) -> None:
    faulty.tell("fixed", "")
    home.write(".config/replug/config.toml", "modules = []\n")
    agent = start_agent("-P", f"{faulty.home.folder}/*", env=faulty.env)
    assert agent.add_provider(faulty.module, PIN).status == 0, agent.log
    assert agent.ssh_add("-T", faulty.public).status == 0, agent.log
    time.sleep(1.5)  # a scan may have been due
    calls = faulty.calls()

    time.sleep(QUIET)
    assert faulty.calls() == calls

    assert agent.ssh_add("-T", faulty.public).status == 0, agent.log
    assert faulty.calls() > calls


def test_a_token_that_can_be_removed_is_looked_for_all_the_time(
    start_agent: StartAgent, home: Home, faulty: Faulty
) -> None:
    home.write(".config/replug/config.toml", "modules = []\n")
    agent = start_agent("-P", f"{faulty.home.folder}/*", env=faulty.env)
    assert agent.add_provider(faulty.module, PIN).status == 0, agent.log
    calls = faulty.calls()
    eventually(lambda: faulty.calls() > calls, "the next scan")
    faulty.tell("out", "")
    key = faulty.public.read_text().split()[1]
    eventually(lambda: key not in agent.ssh_add("-L").out, "the key is gone")
    faulty.tell("out", None)
    eventually(lambda: key in agent.ssh_add("-L").out, "the key is back")
