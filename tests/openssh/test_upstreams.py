"""Other agents behind this one: OpenSSH's, gpg-agent, itself, and such as answer nothing."""

from __future__ import annotations

import shlex
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rigs.agent import LIST_REQUEST, OPENSSH, Agent, StartAgent
from rigs.doctor import REPLUG, Diagnosis
from rigs.gpg_agent import gpg_agent
from rigs.home import Home
from rigs.key_files import make_key, public_of
from rigs.sshd import USER, Server, only
from rigs.terminal import Done, eventually


def behind(home: Home, *sockets: Path, settings: str = "") -> None:
    """Puts other agents behind those that are started from now on."""
    home.configure(f"modules = []\nupstreams = {[str(one) for one in sockets]}\n{settings}")


def names(agent: Agent) -> list[str]:
    """The comments of the keys that it lists."""
    return [line.split()[2] for line in agent.ssh_add("-L").out.splitlines() if line.startswith("ssh-")]


def in_there(done: Done) -> bool:
    return (done.status, done.out) == (0, f"in {USER}\n")


@pytest.fixture
def dead(home: Home) -> Path:
    """A socket that nobody listens at."""
    path = home.folder / "dead.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    return path


@pytest.fixture
def gpg(home: Home) -> Iterator[Path]:
    with gpg_agent(home) as path:
        yield path


def test_a_login_with_a_key_of_each(
    home: Home, gpg: Path, dead: Path, server: Server, start_agent: StartAgent
) -> None:
    """One list, own keys first; what is said of keys, and of the lock, holds for all of them."""
    other = start_agent(program=OPENSSH)
    keys = [make_key(home, name) for name in ("own", "openssh", "card", "both")]
    own, openssh, card, both = keys
    assert other.ssh_add("-q", openssh, both).status == 0
    assert home.run("ssh-add", "-q", card, env={"SSH_AUTH_SOCK": str(gpg)}).status == 0
    behind(home, other.socket, dead, gpg, home.folder / "nothing")
    agent = start_agent()
    assert agent.ssh_add("-q", both, own).status == 0
    server.authorize(*map(public_of, keys))

    assert names(agent) == ["both", "own", "openssh", "card"]
    for key in keys:
        assert in_there(server.login(agent, *only(public_of(key)))), agent.log
    signed = [line for line in agent.log.splitlines() if "INFO signed" in line]
    places = ["token=memory", f'token="agent at {other.socket}"', f'token="agent at {gpg}"', "token=memory"]
    assert [place in line for place, line in zip(places, signed, strict=True)] == [True] * 4
    assert all(f'as {USER}" host=' in line for line in signed), signed

    # What changes keys is for this agent alone.
    removed = agent.ssh_add("-d", public_of(openssh))
    assert removed.status == 1
    assert agent.ssh_add("-d", public_of(both)).status == 0
    explained = agent.run(REPLUG, "explain").out
    assert f"but in the agent at {other.socket}" in explained
    assert f"SSH_AUTH_SOCK={other.socket} ssh-add -d" in explained
    assert names(agent) == ["own", "openssh", "both", "card"]

    status = agent.run(REPLUG, "status").out
    assert f"{other.socket}: 2 keys\n" in status
    assert f"{gpg}: 1 key\n" in status
    assert f"no agent listens at {dead}" in status
    assert f"{home.folder}/nothing does not exist" in status
    found = Diagnosis(home, env=agent.env).all("upstreams")
    assert [one.outcome for one in found] == ["ok", "warn", "ok", "warn"]
    # Said once, not with every list.
    assert agent.log.count(f"no agent listens at {dead}") == 1

    locked = agent.ssh_add("-x", typing=[("password: ", "a"), ("Again: ", "a")])
    assert locked.status == 0, locked
    assert names(agent) == []
    assert agent.ssh_add("-T", public_of(openssh)).status == 1
    assert "2 keys" in agent.run(REPLUG, "status").out


def test_a_key_restricted_there_is_restricted_here(home: Home, start_agent: StartAgent) -> None:
    """Through two hosts, as with that agent itself."""
    outer, inner = Server(home, name="outer"), Server(home, name="inner")
    key, free = make_key(home, "key"), make_key(home, "free")
    outer.authorize(public_of(key), public_of(free))
    inner.authorize(public_of(key))
    other = start_agent(program=OPENSSH)
    known = [word for host in (outer, inner) for word in ("-H", host.known_hosts)]
    assert other.ssh_add("-q", *known, "-h", "outer", "-h", "outer>inner", key).status == 0
    assert other.ssh_add("-q", free).status == 0
    view = home.folder / "run" / "view" / "sock"
    behind(home, other.socket, settings=f'[[socket]]\npath = "{view}"\nkeys = ["*"]')
    first = start_agent()
    behind(home, first.socket)
    options = ("-A", *only(public_of(key)))

    # And behind an agent that is behind another.
    for agent in (first, start_agent()):
        assert in_there(outer.login(agent, *options)), agent.log
        there = outer.login(
            agent, *options, command=shlex.join(inner.ssh(*options, command="echo in $LOGNAME"))
        )
        assert in_there(there), agent.log
        beyond = shlex.join(inner.ssh(*options, command="ssh-add -L"))
        assert outer.login(agent, *options, command=beyond).out == public_of(free).read_text()
        assert inner.login(agent, *options).status == 255
        assert names(agent) == ["key", "free"]
        assert agent.ssh_add("-T", public_of(key)).status == 1

    # Over a socket that is given away it is not shown, also to who binds a session as ssh does here.
    at_view = {"SSH_AUTH_SOCK": str(view)}
    assert home.run("ssh-add", "-L", env=at_view).out == public_of(free).read_text()
    command = outer.ssh("-A", *only(public_of(free)), command="ssh-add -L")
    assert home.run(*command, env=at_view).out == public_of(free).read_text()
    command = outer.ssh(*only(public_of(key)), command="true")
    assert home.run(*command, env=at_view).status == 255


def test_uses_are_confirmed_as_those_of_other_keys(home: Home, start_agent: StartAgent) -> None:
    program = home.write("askpass", f'#!/bin/sh\necho "$1" >>{home.folder}/asked\nexit 1\n', 0o700)
    other = start_agent(program=OPENSSH)
    key = make_key(home, "key")
    assert other.ssh_add("-q", key).status == 0
    behind(home, other.socket, settings="confirm = true")
    agent = start_agent(env={"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force"})
    assert agent.ssh_add("-T", public_of(key)).status == 1
    assert "key" in (home.folder / "asked").read_text()
    assert "the user declined" in agent.log


def test_it_is_not_behind_itself(home: Home, start_agent: StartAgent) -> None:
    """By whatever name."""
    link = home.folder / "link"
    link.symlink_to(home.folder / "agent0.sock")
    behind(home, home.folder / "agent0.sock", link)
    agent = start_agent()
    assert agent.ssh_add("-q", make_key(home, "own")).status == 0
    assert names(agent) == ["own"]
    assert f"{agent.socket} is this agent itself" in agent.log
    assert f"{link} is this agent itself" in agent.log


def test_one_that_hangs_is_left_out_until_it_answers(home: Home, start_agent: StartAgent) -> None:
    other = start_agent(program=OPENSSH)
    assert other.ssh_add("-q", make_key(home, "other")).status == 0
    behind(home, other.socket)
    agent = start_agent()
    assert agent.ssh_add("-q", make_key(home, "own")).status == 0
    assert names(agent) == ["own", "other"]
    with agent.connect() as connection, agent.connect() as another:
        assert another.ask(LIST_REQUEST)[:5] == b"\x0c\x00\x00\x00\x02"
        other.process.send_signal(signal.SIGSTOP)
        try:
            assert connection.ask(LIST_REQUEST)[:5] == b"\x0c\x00\x00\x00\x01"
            # It has kept one client waiting for a second, and keeps no other.
            begun = time.monotonic()
            for _ in range(50):
                assert another.ask(LIST_REQUEST)[:5] == b"\x0c\x00\x00\x00\x01"
            assert time.monotonic() - begun < 10
            assert agent.ssh_add("-q", make_key(home, "more")).status == 0
            assert another.ask(LIST_REQUEST)[:5] == b"\x0c\x00\x00\x00\x02"
            assert "left out of lists until it answers" in agent.run(REPLUG, "status").out
            assert agent.log.count("did not answer within 1 s") == 1
        finally:
            other.process.send_signal(signal.SIGCONT)
    eventually(lambda: names(agent) == ["own", "more", "other"], "it is listed again")


def test_a_reload_takes_one_in_and_out(home: Home, start_agent: StartAgent) -> None:
    other = start_agent(program=OPENSSH)
    key = make_key(home, "key")
    assert other.ssh_add("-q", key).status == 0
    agent = start_agent()
    assert names(agent) == []
    behind(home, other.socket)
    assert agent.run(REPLUG, "reload").status == 0
    assert names(agent) == ["key"]
    behind(home)
    assert agent.run(REPLUG, "reload").status == 0
    assert names(agent) == []
    assert agent.ssh_add("-T", public_of(key)).status == 1
