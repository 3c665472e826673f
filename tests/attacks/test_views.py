"""What a client of a socket for some of the keys tries: to do more, to use other keys, to look local."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from doubles.private_keys import ed25519_key, message
from doubles.session_hosts import HERE, bind_of, hop, leave
from doubles.stand_ins import Key
from rigs.agent import (
    FAILURE,
    LIST_REQUEST,
    OPENSSH,
    Agent,
    Connection,
    StartAgent,
    frame,
    sign_request,
    string,
)
from rigs.home import Home
from rigs.key_files import blob_of, certify, make_key, public_of
from rigs.root import AS_ROOT, may_be_root
from rigs.sshd import USER
from rigs.terminal import eventually

from replug.protocol.constraints import RestrictDestination
from replug.protocol.decoding import decode_response
from replug.protocol.extensions import SESSION_BIND, SessionBind
from replug.protocol.keys import fingerprint
from replug.protocol.messages import Extension, IdentitiesAnswer
from replug.protocol.userauth import UserauthRequest

REPLUG = Path(sys.executable).with_name("replug")
SERVER, OTHER = Key(), Key()
SUCCESS, SIGNED, LISTED, EXTENSION_FAILURE = b"\x06", b"\x0e", b"\x0c", b"\x1c"


@dataclass
class World:
    """An agent with keys of all kinds, and sockets for some, for all, and for logins at SERVER."""

    agent: Agent
    folder: Path
    shown: bytes
    """What the socket `some` is for."""
    hidden: bytes
    certificate: bytes
    """Of the hidden key."""
    ca: bytes
    restricted: bytes
    """A key for logins at SERVER from here."""
    in_time: bytes
    """The certificate that the agent has made for a login at SERVER, of a key that is nowhere else."""

    def connect(self, name: str) -> Connection:
        return Connection(self.folder / name, 30)


@pytest.fixture
def world(home: Home, start_agent: StartAgent) -> World:
    shown, hidden, ca = (make_key(home, name) for name in ("shown", "hidden", "ca"))
    certificate = certify(home, ca, public_of(hidden))
    ca_print = fingerprint(blob_of(public_of(ca)))
    folder, server = home.folder / "run" / "views", fingerprint(SERVER.blob)
    home.configure(
        "modules = []\n"
        f'[[ca]]\nkey = "{ca_print}"\nmax_validity = "1h"\nprincipals = ["*"]\n'
        f'[[certificate]]\nca = "{ca_print}"\nhosts = "{server}"\nprincipals = "{USER}"\n'
        f'[[socket]]\npath = "{folder}/some"\nkeys = "shown"\n'
        f'[[socket]]\npath = "{folder}/all"\nkeys = "*"\n'
        f'[[socket]]\npath = "{folder}/host"\nkeys = "shown"\nhosts = "{server}"\n'
    )
    agent = start_agent()
    assert agent.ssh_add("-q", shown, hidden, ca).status == 0
    restricted = ed25519_key()
    only_there = RestrictDestination((leave(HERE, hop("server", SERVER)),))
    with agent.connect() as connection:
        assert connection.ask(frame(bytes(message(restricted, only_there)))) == SUCCESS
        assert connection.ask(bind(SERVER)) == SUCCESS
        in_time, *_ = listed(connection)
        assert connection.ask(sign_request(in_time))[:1] == SIGNED
    eventually(lambda: len(list(folder.glob("*"))) == 3, "the sockets")
    return World(
        agent,
        folder,
        *(blob_of(public) for public in (public_of(shown), public_of(hidden), certificate, public_of(ca))),
        restricted.public.encode(),
        in_time,
    )


def extension(sent: SessionBind) -> bytes:
    return frame(Extension(SESSION_BIND, sent.encode()).encode())


def bind(host: Key, session: bytes = b"session", *, forwarding: bool = False) -> bytes:
    return extension(bind_of(host, session, forwarding=forwarding))


def listed(connection: Connection) -> list[bytes]:
    answer = decode_response(connection.ask(LIST_REQUEST))
    assert isinstance(answer, IdentitiesAnswer)
    return [one.key_blob for one in answer.identities]


def test_it_lists_signs_binds_and_queries_and_sends_nothing_else(world: World) -> None:
    before = world.agent.ssh_add("-L").out
    meant = {
        0x11: bytes(message(ed25519_key()))[1:],
        0x12: string(world.shown),
        0x14: string(b"/usr/lib/softhsm/libsofthsm2.so") + string(b"1234"),
        0x15: string(b"/usr/lib/softhsm/libsofthsm2.so") + string(b""),
        0x16: string(b"mine now"),
        0x17: string(b"mine now"),
        0x19: bytes(message(ed25519_key()))[1:] + b"\x02",
        0x1A: string(b"/tmp/evil.so") + string(b"") + b"\x02",
    }
    answered = {}
    for number in range(256):
        with world.connect("all") as connection:
            for contents in (b"", meant.get(number, b"")):
                reply = connection.ask(frame(bytes([number]) + contents))
                if reply != FAILURE:
                    answered[number] = reply[:1]
            assert listed(connection), number
    assert answered == {0x0B: LISTED}
    with world.connect("some") as connection:
        assert connection.ask(frame(b"\x1b" + string(b"query")))[:1] == b"\x1d"
        assert connection.ask(frame(b"\x1b" + string(b"other@example.com"))) == FAILURE
        assert connection.ask(sign_request(world.shown))[:1] == SIGNED
    assert world.agent.ssh_add("-L").out == before
    assert json.loads(world.agent.run(REPLUG, "status", "--json").out)["providers"] == []
    assert f"(socket {world.folder}/all)" in world.agent.log


def test_no_other_key_is_there(world: World) -> None:
    """Whatever a client says of itself; also not what exists for logins from here alone, and CA keys."""
    never = [world.ca, world.restricted, world.in_time]
    for said in ((), (bind(SERVER),), (bind(OTHER, b"first", forwarding=True), bind(SERVER))):
        with world.connect("some") as some, world.connect("all") as everything:
            for connection in (some, everything):
                assert [connection.ask(one) for one in said] == [SUCCESS] * len(said)
            assert listed(some) == [world.shown]
            assert listed(everything) == [world.shown, world.hidden, world.certificate]
            for blob in (world.hidden, world.certificate, *never):
                login = UserauthRequest(b"session", USER, "ssh-ed25519", blob, SERVER.blob).encode()
                for data in (b"data", login):
                    assert some.ask(sign_request(blob, data)) == FAILURE
                    if blob in never:
                        assert everything.ask(sign_request(blob, data)) == FAILURE
    with world.agent.connect() as own:
        assert own.ask(sign_request(world.hidden))[:1] == SIGNED
        assert world.ca in listed(own)
    explained = f"key {fingerprint(world.hidden)} cannot be used over this socket"
    assert explained in world.agent.log


def test_a_socket_for_one_host_is_for_logins_there(world: World) -> None:
    def at(session: bytes, host: Key = SERVER) -> bytes:
        return UserauthRequest(session, USER, "ssh-ed25519", world.shown, host.blob).encode()

    broken = bytearray(bind(SERVER))
    broken[-2] ^= 1
    elsewhere: dict[str, list[bytes]] = {
        "unbound": [],
        "another host": [bind(OTHER)],
        "forwarded": [bind(SERVER, forwarding=True)],
        "by way of another": [bind(OTHER, b"first", forwarding=True), bind(SERVER)],
        "by way of the same": [bind(SERVER, b"first", forwarding=True), bind(SERVER)],
        "not verified": [bytes(broken)],
        "not verified at first": [bytes(broken), bind(SERVER)],
    }
    for name, said in elsewhere.items():
        with world.connect("host") as connection:
            for one in said:
                connection.ask(one)
            assert listed(connection) == [], name
            for data in (at(b"session"), at(b"session", OTHER), b"data"):
                assert connection.ask(sign_request(world.shown, data)) == FAILURE, name
    with world.connect("host") as connection:
        assert connection.ask(bind(SERVER)) == SUCCESS
        assert listed(connection) == [world.shown]
        for data in (b"data", at(b"another"), at(b"session", OTHER), at(b"session") + b"\0"):
            assert connection.ask(sign_request(world.shown, data)) == FAILURE
        assert connection.ask(bind(OTHER)) == EXTENSION_FAILURE
        assert connection.ask(sign_request(world.shown, at(b"session")))[:1] == SIGNED
    assert "over this socket only logins at its hosts are signed" in world.agent.log


def test_of_other_agents_keys_those_that_it_names_are_there(home: Home, start_agent: StartAgent) -> None:
    path, theirs = home.folder / "run" / "view", start_agent(program=OPENSSH)
    home.configure(
        f'modules = []\nupstreams = ["{theirs.socket}"]\n[[socket]]\npath = "{path}"\nkeys = "shown-*"\n'
    )
    agent = start_agent()
    shown, hidden, own = (make_key(home, name) for name in ("shown-theirs", "hidden", "shown-own"))
    assert theirs.ssh_add(shown, hidden).status == 0
    assert agent.ssh_add(own).status == 0
    blobs = [blob_of(public_of(key)) for key in (own, shown, hidden)]
    with agent.connect() as connection:
        assert listed(connection) == blobs
        assert [connection.ask(sign_request(blob))[:1] for blob in blobs] == [SIGNED] * 3
    for listed_before in (False, True):
        with Connection(path, 30) as connection:
            if listed_before:
                assert listed(connection) == blobs[:2]
            for blob, reply in zip(blobs, (SIGNED, SIGNED, FAILURE), strict=True):
                assert connection.ask(sign_request(blob))[:1] == reply, agent.log


CROWD = """
import os, socket, sys
for _ in range(int(sys.argv[2])):
    if os.fork() == 0:
        one = socket.socket(socket.AF_UNIX)
        try:
            one.connect(sys.argv[1])
            one.send(bytes([0, 0, 0, 1]))
        except OSError:
            pass
        os.write(1, b".")
        os.read(0, 1)
        os._exit(0)
os.read(0, 1)
"""
LIST = """
import socket, sys
one = socket.socket(socket.AF_UNIX)
one.settimeout(20)
one.connect(sys.argv[1])
one.send(bytes([0, 0, 0, 1, 11]))
sys.exit(one.recv(5)[4:] != bytes([12]))
"""


def test_a_crowd_there_keeps_nobody_else_out(
    home: Home, start_agent: StartAgent, request: pytest.FixtureRequest
) -> None:
    """More processes than there is room for, each with half a message, of the program that others use."""
    folder = home.folder / "run" / "views"
    home.configure(
        "modules = []\n" + "".join(f'[[socket]]\npath = "{folder}/{name}"\nkeys = "*"\n' for name in "ab")
    )
    few = shlex.join(["prlimit", "--nofile=200", str(request.config.getoption("agent"))])
    agent = start_agent(program=home.write("few", f'#!/bin/sh\nexec {few} "$@"\n', 0o700))
    eventually((folder / "b").exists, "the sockets")
    python = ("/usr/bin/python3", "-I", "-c")
    crowd = subprocess.Popen(
        [*python, CROWD, folder / "a", "250"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert crowd.stdin
    assert crowd.stdout
    try:
        crowd.stdout.read(250)
        for path in (agent.socket, folder / "b") * 5:
            assert home.run(*python, LIST, path).status == 0, agent.log
    finally:
        crowd.stdin.close()
        crowd.wait(30)
        crowd.stdout.close()


@pytest.mark.skipif(not may_be_root(), reason="only root becomes other users")
def test_another_user_is_not_served(world: World, home: Home) -> None:
    """Though everybody may connect."""
    home.folder.chmod(0o711)
    for folder in (home.folder / "run", world.folder):
        folder.chmod(0o711)
    path = world.folder / "all"
    path.chmod(0o666)
    stranger = [*AS_ROOT, "setpriv", "--reuid=64321", "--regid=64321", "--clear-groups"]
    command = [*stranger, "env", f"SSH_AUTH_SOCK={path}", "ssh-add", "-l"]
    assert subprocess.run(command, capture_output=True).returncode != 0
    eventually(lambda: f"connection from another user to {path}" in world.agent.log, "the refusal")
    with world.connect("all") as connection:
        assert listed(connection)
