"""Keys for certain destinations only (`ssh-add -h`), with real sshds, side by side with OpenSSH's agent."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from doubles.private_keys import ed25519_key, message
from doubles.session_hosts import HERE, bind_of, certificate, hop, leave
from doubles.stand_ins import Key
from rigs.agent import LIST_REQUEST, PIN_PROMPT, Agent, frame, openssh_release
from rigs.compared import Agents, compare_exactly
from rigs.home import Home
from rigs.key_files import FILE_KINDS, POST_QUANTUM, certify, make_key, public_of
from rigs.softhsm import MODULE, PIN, Token
from rigs.sshd import USER, Server, only
from rigs.terminal import Done

from replug.protocol.constraints import RestrictDestination
from replug.protocol.messages import Extension

NOTHING = Done(1, "The agent has no identities.\n", "")


@dataclass
class World:
    """Two hosts, `outer` and `inner`, that let one key in; and how that key is added."""

    outer: Server
    inner: Server
    public: Path
    source: tuple[str | Path, ...]
    """ssh-add's last arguments: a file, or a module."""

    def add(self, agent: Agent, *destinations: str) -> Done:
        """`ssh-add -h destination ...`."""
        options = [word for server in (self.outer, self.inner) for word in ("-H", server.known_hosts)]
        options += [word for destination in destinations for word in ("-h", destination)]
        typing = [(PIN_PROMPT, PIN)] if self.source[0] == "-s" else []
        return agent.ssh_add("-q", *options, *self.source, typing=typing)

    def at_outer(self, agent: Agent, command: str = "echo in $LOGNAME") -> Done:
        """Logs in to `outer`, forwarding the agent."""
        return self.outer.login(agent, "-A", *only(self.public), command=command)

    def at_inner(self, agent: Agent, command: str = "echo in $LOGNAME") -> Done:
        """Logs in to `inner` by way of `outer`, forwarding the agent to both."""
        ssh = self.inner.ssh("-A", *only(self.public), command=command)
        return self.at_outer(agent, shlex.join(ssh))

    def at_inner_directly(self, agent: Agent) -> Done:
        """Logs in to `inner` from here."""
        return self.inner.login(agent, "-A", *only(self.public))


@pytest.fixture(params=["token", *(kind for kind in ("ed25519", POST_QUANTUM) if kind in FILE_KINDS)])
def world(request: pytest.FixtureRequest, home: Home) -> World:
    """With a key on a token, or one in a file, of the kind that the hosts' keys have."""
    kind = "ed25519" if request.param == "token" else request.param
    outer, inner = (Server(home, name=name, kind=kind) for name in ("outer", "inner"))
    if request.param == "token":
        world = World(outer, inner, Token(home).add("p256"), ("-s", MODULE))
    else:
        private = make_key(home, "key", kind)
        world = World(outer, inner, public_of(private), (private,))
    outer.authorize(world.public)
    inner.authorize(world.public)
    return world


def brief(done: Done) -> tuple[int, str]:
    """What does not depend on process ids in ssh's complaints."""
    return done.status, done.out


def in_there(done: tuple[int, str]) -> bool:
    return done == (0, f"in {USER}\n")


def test_one_host(agents: Agents, world: World) -> None:
    """The key logs in there and nowhere else, not even beyond, where it is not shown either."""

    def session(agent: Agent) -> list[tuple[int, str]]:
        return [
            brief(world.add(agent, "outer")),
            brief(agent.ssh_add("-T", world.public)),
            brief(world.at_outer(agent)),
            brief(world.at_outer(agent, "ssh-add -l")),
            brief(world.at_inner(agent)),
            brief(world.at_inner_directly(agent)),
        ]

    added, signed, outer, shown, inner, directly = compare_exactly(agents, session)

    assert added == (0, "")
    assert signed[0] == 1  # not for a login, and bound to nothing
    assert in_there(outer), agents[0].log
    assert shown == brief(NOTHING)
    assert (inner[0], directly[0]) == (255, 255)
    assert "is restricted to destinations" in agents[0].log


def test_one_host_by_way_of_another(agents: Agents, world: World) -> None:
    """It is shown where it may be used on, and not beyond."""

    def session(agent: Agent) -> list[tuple[int, str]]:
        return [
            brief(world.add(agent, "outer", "outer>inner")),
            brief(world.at_outer(agent, "ssh-add -L | cut -d ' ' -f 1,2")),
            brief(world.at_inner(agent)),
            brief(world.at_inner(agent, "ssh-add -l")),
            brief(world.at_inner_directly(agent)),
            brief(agent.ssh_add("-L")),
        ]

    added, shown, inner, beyond, directly, here = compare_exactly(agents, session)

    public = world.public.read_text().split()
    assert added == (0, "")
    assert shown == (0, f"{public[0]} {public[1]}\n")
    assert in_there(inner), agents[0].log
    assert beyond == brief(NOTHING)
    assert directly[0] == 255
    assert here[1].split()[:2] == public[:2]


@pytest.mark.parametrize(
    ("outer_user", "inner_user", "reaches"),
    [(USER, f"{USER[:2]}*", "inner"), ("*", "nobody-else", "outer"), ("x*", USER, "")],
)
def test_one_user(outer_user: str, inner_user: str, reaches: str, agents: Agents, world: World) -> None:
    def session(agent: Agent) -> list[tuple[int, str]]:
        return [
            brief(world.add(agent, f"{outer_user}@outer", f"outer>{inner_user}@inner")),
            brief(world.at_outer(agent)),
            brief(world.at_inner(agent)),
        ]

    added, outer, inner = compare_exactly(agents, session)

    assert added == (0, "")
    assert [in_there(outer), in_there(inner)] == [reaches in ("outer", "inner"), reaches == "inner"]


def test_what_is_not_shown_is_neither_removed_nor_loosened(agents: Agents, world: World, home: Home) -> None:
    """A far host that has the key, too, may not put its own terms in the place of ours."""
    askpass = home.write("askpass", f"#!/bin/sh\necho {PIN}\n", 0o755)
    other = make_key(home, "other")
    world.outer.authorize(world.public, public_of(other))
    source = shlex.join(map(str, world.source))

    def session(agent: Agent) -> list[tuple[int, str]]:
        def far(command: str) -> tuple[int, str]:
            environment = f"SSH_ASKPASS={askpass} SSH_ASKPASS_REQUIRE=force"
            options = ("-A", *only(public_of(other)))
            return brief(world.outer.login(agent, *options, command=f"{environment} {command}"))

        return [
            brief(agent.ssh_add("-q", other)),
            brief(world.add(agent, "outer")),
            far(f"ssh-add -d {world.public}"),
            far(f"ssh-add {source}"),
            far("ssh-add -l | wc -l"),
            brief(world.at_inner_directly(agent)),
            brief(world.at_outer(agent)),
        ]

    said = compare_exactly(agents, session)

    assert [status for status, _ in said] == [0, 0, 1, 1, 0, 255, 0], agents[0].log
    assert said[4][1].strip() == "1"


def test_a_certificate_is_for_the_destinations_of_its_key(agents: Agents, home: Home) -> None:
    ca, key = make_key(home, "ca"), make_key(home, "key")
    certificate = certify(home, ca, public_of(key), "-n", USER)
    settings = (f"TrustedUserCAKeys {public_of(ca)}", "AuthorizedKeysFile none")
    servers = [Server(home, *settings, name=name) for name in ("outer", "inner")]
    destination = ("-H", servers[0].known_hosts, "-h", "outer")

    def session(agent: Agent) -> list[tuple[int, str]]:
        added = agent.ssh_add("-q", *destination, key)
        return [brief(added), *(brief(server.login(agent, *only(certificate))) for server in servers)]

    added, outer, inner = compare_exactly(agents, session)

    assert added == (0, "")
    assert in_there(outer), agents[0].log
    assert inner[0] == 255


def test_adding_it_again_changes_the_destinations(agents: Agents, world: World) -> None:
    def session(agent: Agent) -> list[tuple[int, str]]:
        said = []
        for destination in ("outer", "inner"):
            if world.source[0] == "-s" and destination == "inner" and agent is agents[1]:
                # OpenSSH's agent does not change what it has of a provider, and 10.6's ends.
                assert agent.ssh_add("-e", MODULE).status == 0
            said += [brief(world.add(agent, destination))]
            said += [brief(world.at_outer(agent)), brief(world.at_inner_directly(agent))]
        return said

    said = compare_exactly(agents, session)

    assert [in_there(one) for one in said] == [False, True, False, False, False, True], agents[0].log


@pytest.mark.parametrize(
    ("principals", "fits"),
    [
        (("inner",), True),
        (("inn*",), True),
        (("*",), True),
        (("i?ner", "other"), True),
        (("other", "inner"), True),
        (("i?n", "other"), False),
    ],
)
def test_host_certificates(principals: tuple[str, ...], fits: bool, agents: Agents) -> None:
    """A key for a host that a CA certifies is shown in the session of one that has a certificate.

    Principals are patterns, as for ssh and its agent since OpenSSH 10.3; before, a pattern was for nobody.
    """
    key, host, ca = ed25519_key(), Key(), Key()
    constraints = RestrictDestination((leave(HERE, hop("inner", ca=ca)),))
    bind = bind_of(host, b"session", blob=certificate(host, ca, *principals))

    def session(agent: Agent) -> list[bytes]:
        with agent.connect() as connection:
            return [
                connection.ask(frame(bytes(message(key, constraints)))),
                connection.ask(frame(Extension("session-bind@openssh.com", bind.encode()).encode())),
                connection.ask(LIST_REQUEST)[:5],
            ]

    ours, theirs = (session(agent) for agent in agents)

    assert ours == [b"\x06", b"\x06", b"\x0c\0\0\0" + bytes([fits])]
    assert theirs[:2] == ours[:2]
    assert theirs[2][4] == (fits if openssh_release() >= (10, 3) else "inner" in principals)
