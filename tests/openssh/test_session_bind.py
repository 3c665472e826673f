"""Sessions bound in every order, and what a restricted key then does: side by side with OpenSSH's agent.

With the recorded session-binds of ssh, whose host keys have really signed, and a key that may be used for a
login at one host, and from there at another.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from rigs.agent import FAILURE, LIST_REQUEST, Agent, Connection, frame, sign_request
from rigs.compared import Agents, compare_exactly

from replug.protocol.constraints import DestinationConstraint, Hop, HopKey, RestrictDestination
from replug.protocol.decoding import Request, decode_request
from replug.protocol.extensions import SESSION_BIND, SessionBind
from replug.protocol.messages import AddIdentity, Extension
from replug.protocol.userauth import UserauthRequest

SUCCESS, EXTENSION_FAILURE, NO_KEYS = b"\x06", b"\x1c", b"\x0c\x00\x00\x00\x00"
REQUESTS = Path(__file__).parent.parent / "messages" / "requests"
LONGEST = 3  # binds in a row


def recorded(name: str) -> Request:
    return decode_request((REQUESTS / f"{name}.bin").read_bytes())


def bind_to(host: str) -> SessionBind:
    """What ssh said of a session with a host that has this kind of key."""
    request = recorded(f"extension-session-bind-host-{host}")
    assert isinstance(request, Extension)
    return SessionBind.decode(request.contents)


NEAR, FAR, STRANGER = bind_to("ed25519"), bind_to("rsa"), bind_to("ecdsa-nistp256")
BINDS = {
    "near": NEAR,
    "far": FAR,
    "over near": replace(NEAR, is_forwarding=True),
    "over far": replace(FAR, is_forwarding=True),
    "over a stranger": replace(STRANGER, is_forwarding=True),
    "another session near": replace(NEAR, session_id=FAR.session_id),  # of which the signature is wrong
}


@pytest.fixture
def key(agents: Agents) -> bytes:
    """The blob of a key for logins of alice at `near`, and of anybody from there at `far`."""
    near = Hop("", "near", (HopKey(NEAR.host_key, is_ca=False),))
    far = Hop("", "far", (HopKey(FAR.host_key, is_ca=False),))
    to_near = DestinationConstraint(Hop("", "", ()), replace(near, user="al*"))
    constraint = RestrictDestination((to_near, DestinationConstraint(near, far)))
    request = recorded("add-ed25519")
    assert isinstance(request, AddIdentity)
    for agent in agents:
        with agent.connect() as connection:
            assert connection.ask(frame(replace(request, constraints=(constraint,)).encode())) == SUCCESS
    return request.key.blob


def uses(connection: Connection, key: bytes) -> str:
    """What the key may be used for on a connection, in one word each."""
    able = ["listed"] if connection.ask(LIST_REQUEST) != NO_KEYS else []
    logins = {
        f"{user} {method} {name}": UserauthRequest(host.session_id, user, "ssh-ed25519", key, host_key)
        for name, host in (("near", NEAR), ("far", FAR))
        for user in ("alice", "bob")
        for method, host_key in (
            ("at", host.host_key),
            ("unbound-at", None),
            ("mistaken-at", STRANGER.host_key),
        )
    }
    data = {name: login.encode() for name, login in logins.items()} | {"anything": b"data"}
    return ", ".join(
        able + [name for name in data if connection.ask(sign_request(key, data[name])) != FAILURE]
    )


def test_every_order(agents: Agents, key: bytes) -> None:
    orders = [order for length in range(1, LONGEST + 1) for order in itertools.product(BINDS, repeat=length)]

    def session(agent: Agent) -> dict[tuple[str, ...], tuple[int, str]]:
        """Of each order how many binds succeeded, and what was possible then."""
        said = {}
        for order in orders:
            with agent.connect() as connection:
                held = []
                for name in order:
                    reply = connection.ask(frame(Extension(SESSION_BIND, BINDS[name].encode()).encode()))
                    assert reply in (SUCCESS, FAILURE, EXTENSION_FAILURE)
                    held.append(reply == SUCCESS)
                # From 9.3 on OpenSSH's agent shows nothing restricted where no bind held. Ours shows nothing
                # either where the first did not: the others may be the host's whose key nobody could verify.
                said[order] = (sum(held), uses(connection, key) if held[0] or agent is agents[0] else "")
        return said

    said = compare_exactly(agents, session)

    assert said["near",] == (1, "listed, alice at near, alice unbound-at near")
    assert said["far",] == (1, "")
    assert said["over near",] == (1, "listed")
    assert said["over near", "far"] == (2, "listed, alice at far, bob at far")
    assert said["over near", "over far"] == (2, "")
    assert said["near", "far"] == (1, said["near",][1])
    assert said["over a stranger", "near"] == (2, "")
    assert said["another session near", "near"] == (1, "")
    assert {use for _, use in said.values()} == {
        "",
        *(said[way][1] for way in [("near",), ("over near",), ("over near", "far")]),
    }


def test_a_bind_that_fails_leaves_nothing_restricted_in_sight(agents: Agents, key: bytes) -> None:
    """Without any the key is listed, and signs nothing."""
    ours, _ = agents
    with ours.connect() as connection:
        assert uses(connection, key) == "listed"
        wrong = Extension(SESSION_BIND, BINDS["another session near"].encode())
        assert connection.ask(frame(wrong.encode())) == EXTENSION_FAILURE
        assert uses(connection, key) == ""
