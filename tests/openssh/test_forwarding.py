"""The agent forwarded through real sshds, one and two hops: side by side with OpenSSH's agent."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rigs.agent import OPENSSH, Agent, StartAgent
from rigs.compared import Agents, compare_exactly
from rigs.home import Home
from rigs.key_files import make_key, public_of
from rigs.softhsm import PIN, Token
from rigs.sshd import USER, Server, only
from rigs.terminal import Done

REPLUG = Path(sys.executable).with_name("replug")

Login = Callable[[Agent, str], Done]
"""Runs a command at the far end of one or two hops."""


@pytest.fixture
def key(home: Home) -> Path:
    return make_key(home, "key")


@pytest.fixture(params=["one hop", "two hops"])
def far_away(request: pytest.FixtureRequest, home: Home, key: Path) -> Login:
    """`far_away(agent, command)` runs a command at the end of the way, with the agent forwarded there."""
    outer, inner = Server(home, name="outer"), Server(home, name="inner")
    outer.authorize(public_of(key))
    inner.authorize(public_of(key))
    options = ("-A", *only(public_of(key)))

    def run(agent: Agent, command: str) -> Done:
        if request.param == "two hops":
            command = shlex.join(inner.ssh(*options, command=command))
        return outer.login(agent, *options, command=command)

    return run


def add_provider_there(home: Home, token: Token) -> str:
    """`ssh-add -s`, as it is run where there is no terminal."""
    home.write("askpass", f"#!/bin/sh\necho {PIN}\n", 0o755)
    return f"SSH_ASKPASS={home.folder}/askpass SSH_ASKPASS_REQUIRE=force ssh-add -s {token.module}"


def test_keys_are_listed_added_and_removed(agents: Agents, home: Home, key: Path, far_away: Login) -> None:
    other = make_key(home, "other")

    def session(agent: Agent) -> list[Done]:
        return [
            agent.ssh_add(key),
            far_away(agent, f"echo in $LOGNAME; ssh-add -l; ssh-add -T {public_of(key)}"),
            far_away(agent, f"ssh-add {other}"),
            agent.ssh_add("-l"),
            far_away(agent, f"ssh-add -d {other}"),
            agent.ssh_add("-l"),
        ]

    said = compare_exactly(agents, session)

    assert [done.status for done in said] == [0] * 6, agents[0].log
    assert said[1].out.startswith(f"in {USER}\n256 SHA256:")
    assert [len(said[number].out.splitlines()) for number in (3, 5)] == [2, 1]


def test_a_far_host_cannot_have_a_module_loaded(
    agents: Agents, home: Home, key: Path, token: Token, far_away: Login
) -> None:
    """And `replug status` says who tried, and why it was refused."""
    add = add_provider_there(home, token)

    def session(agent: Agent) -> list[Done]:
        return [agent.ssh_add(key), far_away(agent, add), agent.ssh_add("-l")]

    said = compare_exactly(agents, session)

    assert said[1] == Done(1, "", f'Could not add card "{token.module}": agent refused operation\n')
    assert len(said[2].out.splitlines()) == 1
    [refusal] = json.loads(agents[0].run(REPLUG, "status", "--json").out)["refusals"]
    assert refusal["request"] == "AddSmartcardKey"
    assert refusal["program"].startswith("ssh (pid ")
    assert refusal["reason"] == "a forwarded connection may not load PKCS#11 modules"
    assert refusal["next_step"] == "start the agent with -O allow-remote-pkcs11 to allow it"


@pytest.mark.parametrize("far_away", ["two hops"], indirect=True)
def test_unless_it_is_allowed(
    start_agent: StartAgent, home: Home, key: Path, token: Token, far_away: Login
) -> None:
    options = ("-O", "allow-remote-pkcs11")
    agents = start_agent(*options), start_agent(*options, program=OPENSSH)
    add = add_provider_there(home, token)

    def session(agent: Agent) -> list[Done]:
        return [
            agent.ssh_add(key),
            far_away(agent, add),
            far_away(agent, f"ssh-add -T {token.public('p256')}"),
            far_away(agent, add.replace("-s", "-e")),
            agent.ssh_add("-l"),
        ]

    said = compare_exactly(agents, session)

    assert [done.status for done in said] == [0] * 5, agents[0].log
    assert len(said[4].out.splitlines()) == 1


def test_the_log_tells_a_login_from_what_the_far_host_has_signed(
    start_agent: StartAgent, home: Home, key: Path
) -> None:
    """The attack: root of a host uses the agent forwarded to it for a signature or a certificate."""
    outer, inner = Server(home, name="outer"), Server(home, name="inner")
    for server in (outer, inner):
        server.authorize(public_of(key))
    home.write("commit", "signed\n")
    options, agent = ("-A", *only(public_of(key))), start_agent()
    assert agent.ssh_add("-q", key).status == 0
    logging_in = shlex.join(inner.ssh(*options, command="true"))
    sign = f"ssh-keygen -q -Y sign -n git -f {public_of(key)} {home.folder}/commit"
    certify = f"ssh-keygen -q -U -s {public_of(key)} -I evil {public_of(make_key(home, 'evil'))}"

    done = outer.login(agent, *options, command=f"{logging_in} && {sign} && {certify}")

    assert done.status == 0, (done, agent.log)
    outer_key, inner_key = (_fingerprint(home, server.host_key) for server in (outer, inner))
    over = rf"for a program on [^()]* {re.escape(outer_key)}[^,]*, over the forwarded agent"
    purposes = [
        line.partition('purpose="')[2].partition('" ')[0]
        for line in agent.log.splitlines()
        if " signed " in line
    ]
    expected = [
        rf"login at [^,]*{re.escape(outer_key)}[^,]*, as {USER}",
        rf"login at [^,]*{re.escape(inner_key)}[^,]*, {over}, as {USER}",
        rf"SSHSIG signature, not a login, {over}, namespace git",
        rf"user certificate for ANY USER, valid FOREVER, {over}, key id evil, .*",
    ]
    assert len(purposes) == len(expected), agent.log
    assert [said for said, form in zip(purposes, expected, strict=True) if not re.fullmatch(form, said)] == []


def _fingerprint(home: Home, public: Path) -> str:
    return home.run("ssh-keygen", "-l", "-f", public).out.split()[1]
