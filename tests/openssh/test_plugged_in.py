"""Side by side with OpenSSH's agent while a token is plugged in that ours finds by itself: what differs.

The keys of that token are listed after what was added, and so a listing without any other is not empty. What
was added, used, removed or locked answers as ever, and to remove all removes these keys as well.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from rigs.agent import OPENSSH, Agent, StartAgent
from rigs.compared import NO_IDENTITIES, Agents, Heard, compare_exactly, heard
from rigs.home import Home
from rigs.key_files import certify, make_key, public_of
from rigs.registered import Registered
from rigs.softhsm import MODULE, PIN, Token
from rigs.sshd import USER, Server

REPLUG_AGENT = Path(sys.executable).with_name("replug-agent")
SERVED = " served "
LOCK = [("Enter lock password: ", "sesame"), ("Again: ", "sesame")]


@pytest.fixture
def token(home: Home) -> Token:
    """One with more keys than a server hears."""
    token = Token(home)
    for number in range(6):
        token.add("p256", f"number {number} served by itself")
    return token


@pytest.fixture
def agents(home: Home, token: Token, start_agent: StartAgent) -> Agents:
    """Ours with `modules = ["auto"]`, in front of that token, and OpenSSH's."""
    home.configure('modules = ["auto"]')
    registered = Registered(home)
    registered.register("softhsm2", f"module: {MODULE}")
    ours = start_agent(program=registered.program(REPLUG_AGENT))
    assert len(ours.ssh_add("-l").lines) == 6, ours.log
    return ours, start_agent(program=OPENSSH)


def without_served(agent: Agent, *arguments: str) -> Heard:
    """What a listing says of the keys that were added, after which the others have to come."""
    done = agent.ssh_add(*arguments)
    lines = done.out.splitlines()
    added = [line for line in lines if SERVED not in line]
    assert added == lines[: len(added)]
    if lines and not added:
        return NO_IDENTITIES
    return done.status, added, done.err


def test_keys_in_files(agents: Agents, home: Home) -> None:
    keys = [make_key(home, kind, kind) for kind in ("ed25519", "p384", "rsa")]
    certify(home, make_key(home, "ca"), public_of(keys[0]), "-n", USER)
    publics = [public_of(key) for key in keys]

    def session(agent: Agent) -> list[Heard]:
        return [
            without_served(agent, "-l"),
            heard(agent.ssh_add(*keys)),
            without_served(agent, "-l"),
            without_served(agent, "-L"),
            heard(agent.ssh_add("-T", *publics)),
            heard(agent.ssh_add("-k", "-d", keys[1])),
            heard(agent.ssh_add("-d", keys[1])),
            without_served(agent, "-L"),
            heard(agent.ssh_add("-x", typing=LOCK)),
            heard(agent.ssh_add("-l")),
            heard(agent.ssh_add("-T", publics[0])),
            heard(agent.ssh_add("-X", typing=LOCK[:1])),
            without_served(agent, "-l"),
            heard(agent.ssh_add("-D")),
            heard(agent.ssh_add("-l")),
        ]

    said = compare_exactly(agents, session)

    assert [len(said[number][1]) for number in (2, 3, 7, 12)] == [4, 4, 3, 3]
    assert said[0] == said[9] == said[14] == NO_IDENTITIES


def test_the_token_itself_added(agents: Agents, token: Token) -> None:
    """It is no other token then, and is removed for good."""
    public = token.public("number 0 served by itself")

    def session(agent: Agent) -> list[Heard]:
        return [
            heard(agent.add_provider(MODULE, PIN)),
            heard(agent.ssh_add("-l")),
            heard(agent.ssh_add("-L")),
            heard(agent.ssh_add("-T", public)),
            heard(agent.ssh_add("-e", MODULE)),
            heard(agent.ssh_add("-l")),
            heard(agent.ssh_add("-T", public)),
        ]

    said = compare_exactly(agents, session)

    assert len(said[1][1]) == 6
    assert said[5] == NO_IDENTITIES


def test_logins(agents: Agents, home: Home) -> None:
    """The key that was added is tried first, however many the token has."""
    key = make_key(home, "key")
    server = Server(home, "MaxAuthTries 2")
    server.authorize(public_of(key))

    def session(agent: Agent) -> list[Heard]:
        login = server.login(agent)
        return [(login.status, login.lines, ""), heard(agent.ssh_add(key)), heard(server.login(agent))]

    said = compare_exactly(agents, session)

    assert [one[:2] for one in said[::2]] == [(255, []), (0, [f"in {USER}"])]
