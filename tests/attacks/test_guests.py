"""What a guest of a service tries: to use what is another's, to have it for itself, to fill it.

The agent runs with a list of users of its own, so that there are as many as a test wants.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench.footprint import Footprint
from doubles.session_hosts import bind_of
from doubles.stand_ins import Key
from rigs.agent import FAILURE, LIST_REQUEST, Agent, StartAgent, frame, sign_request, string
from rigs.home import Home
from rigs.root import AS_ROOT, may_be_root
from rigs.softhsm import MODULE, PIN, Token

from replug.protocol.certificates import Certificate
from replug.protocol.decoding import decode_response
from replug.protocol.keys import fingerprint
from replug.protocol.messages import Extension, IdentitiesAnswer

REPLUG = Path(sys.executable).with_name("replug")
SERVER = Key()
COUNT = 200
FIRST, GROUP, STRANGER = 61000, 61000, 62000
ALICE, BOB = FIRST, FIRST + 1
SUCCESS, LISTED, SIGNED = b"\x06", b"\x0c", b"\x0e"
LIFETIME = 4  # seconds
BIND = frame(Extension("session-bind@openssh.com", bind_of(SERVER, b"session").encode()).encode())

pytestmark = pytest.mark.skipif(not may_be_root(), reason="only root becomes other users")


class Guests:
    """Some users, who do the same one after the other."""

    def __init__(self, agent: Agent, *uids: int) -> None:
        self._count = len(uids)
        self._process = subprocess.Popen(
            [*AS_ROOT, "/usr/bin/python3", "-I", "-c", Path(__file__).with_name("guest.py").read_text(),
             str(agent.socket), *map(str, uids)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def begin(self, *words: object) -> None:
        assert self._process.stdin
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()

    def ended(self) -> list[str]:
        """What they have to say."""
        assert self._process.stdout
        return [self._process.stdout.readline().strip() for _ in range(self._count)]

    def do(self, *words: object) -> list[str]:
        self.begin(*words)
        return self.ended()

    def ask(self, message: bytes, connection: str = "0") -> list[bytes]:
        """The reply to each; empty where the connection was closed."""
        answers = self.do("ask", connection, message.hex())
        return [b"" if answer == "closed" else bytes.fromhex(answer) for answer in answers]

    def certificates(self, connection: str = "0") -> list[Certificate | None]:
        """What each is listed for a login at the server; nothing else may be in the list."""
        assert self.ask(BIND, connection) == [SUCCESS] * self._count
        found: list[Certificate | None] = []
        for reply in self.ask(LIST_REQUEST, connection):
            answer = decode_response(reply)
            assert isinstance(answer, IdentitiesAnswer)
            blobs = [one.key_blob for one in answer.identities]
            assert len(blobs) < 2
            found.append(Certificate.decode(blobs[0]) if blobs else None)
        return found

    def end(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


@pytest.fixture
def become() -> Iterator[Callable[..., Guests]]:
    """`become(agent, uid, ...)`: these users."""
    all_of_them: list[Guests] = []

    def become(agent: Agent, *uids: int) -> Guests:
        all_of_them.append(Guests(agent, *uids))
        return all_of_them[-1]

    yield become
    for guests in all_of_them:
        guests.end()


@pytest.fixture
def ca(home: Home) -> Token:
    token = Token(home, "ssh_ca")
    token.add("p256")
    token.add("ed25519", "other")
    return token


@pytest.fixture
def service(home: Home, ca: Token, start_agent: StartAgent, request: pytest.FixtureRequest) -> Agent:
    """An agent whose CA key certifies for the members of a group, and that knows the PIN."""
    key = home.run("ssh-keygen", "-lf", ca.public("p256")).out.split()[1]
    pin = home.write("pin", PIN)
    home.configure(
        f'modules = ["{MODULE}"]\n'
        f'[[token]]\nuri = "pkcs11:token=ssh_ca"\npin_source = "file:{pin}"\n'
        f'[[ca]]\nkey = "{key}"\nmax_validity = "10m"\nprincipals = ["root"]\n'
        f'[[certificate]]\nca = "{key}"\nhosts = "{fingerprint(SERVER.blob)}"\nprincipals = "root"\n'
        f'users = "@guests"\nlifetime = "{LIFETIME}s"\nrenew_before = "0"\n'
    )
    users = "".join(f"guest{uid - FIRST}:x:{uid}:{GROUP}::/:/bin/sh\n" for uid in range(FIRST, FIRST + COUNT))
    mallory = f"mallory:x:{STRANGER}:{STRANGER}::/:/bin/sh\n"
    passwd = home.write("passwd", Path("/etc/passwd").read_text() + users + mallory, 0o644)
    group = home.write("group", Path("/etc/group").read_text() + f"guests:x:{GROUP}:\n", 0o644)
    program = request.config.getoption("agent")
    again = ["setpriv", f"--reuid={os.getuid()}", f"--regid={os.getgid()}", "--clear-groups"]
    mounts = f"mount --bind {passwd} /etc/passwd; mount --bind {group} /etc/group"
    as_root = ["sudo", "-n", "-E"] if AS_ROOT else []
    command = [*as_root, "unshare", "--mount", "sh", "-ec", f'{mounts}; exec "$@"', "-", *again, str(program)]
    wrapper = home.write("service", f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', 0o700)
    agent = start_agent(program=wrapper)
    home.folder.chmod(0o711)
    agent.socket.chmod(0o666)
    return agent


def test_nothing_of_others_is_listed_or_signs(
    service: Agent, ca: Token, become: Callable[..., Guests]
) -> None:
    both = become(service, ALICE, BOB)
    hers, his = both.certificates()
    assert hers is not None
    assert his is not None
    assert (hers.key_id.partition(b"@")[0], his.key_id.partition(b"@")[0]) == (b"guest0", b"guest1")
    for certificate, allowed in ((hers, [SIGNED, FAILURE]), (his, [FAILURE, SIGNED])):
        for connection in ("0", "1"):  # a login's, and one that says nothing of itself
            replies = both.ask(sign_request(certificate.encode()), connection)
            assert [reply[:1] for reply in replies] == allowed
    alice = become(service, ALICE)
    ca_key = Certificate.decode(hers.encode()).ca_key
    for blob in (ca_key, hers.key.encode(), his.key.encode()):
        for data in (b"data", hers.body(), his.body()):
            assert alice.ask(sign_request(blob, data)) == [FAILURE]
    assert f"user {ALICE}" in service.run(REPLUG, "explain", "-n", "20").out


def test_who_is_in_no_rule_gets_nothing(service: Agent, become: Callable[..., Guests]) -> None:
    stranger = become(service, STRANGER)
    for message in (BIND, LIST_REQUEST, sign_request(SERVER.blob), frame(b"\x16" + string(b"x"))):
        assert stranger.ask(message) == [FAILURE]
    assert "no [[certificate]] names user mallory, nor a group that mallory is in now" in service.log
    assert "certificate issued" not in service.log


@pytest.mark.parametrize(
    "message",
    [
        b"\x11" + string(b"ssh-ed25519") + string(bytes(32)) + string(bytes(64)) + string(b"evil"),
        b"\x14" + string(str(MODULE).encode()) + string(PIN.encode()),
        b"\x1a" + string(b"/tmp/evil.so") + string(b"") + b"\x01\x00\x00\x00\x05",
        b"\x15" + string(str(MODULE).encode()) + string(b""),
        b"\x12" + string(SERVER.blob),
        b"\x13",
        b"\x09",
        b"\x16" + string(b"mine now"),
        b"\x17" + string(b"guess"),
        b"\xff",
        b"\x1b" + string(b"other@example.com"),
    ],
    ids=[
        "add",
        "load",
        "load-constrained",
        "unload",
        "remove",
        "remove-all",
        "remove-all-1",
        "lock",
        "unlock",
        "unknown",
        "extension",
    ],
)
def test_what_a_guest_may_not_send(message: bytes, service: Agent, become: Callable[..., Guests]) -> None:
    before = service.ssh_add("-L").out
    alice = become(service, ALICE)
    for bound in (False, True):
        if bound:
            assert alice.ask(BIND) == [SUCCESS]
        assert alice.ask(frame(message)) == [FAILURE]
    assert service.ssh_add("-L").out == before
    assert before.count("\n") == 2


def test_a_forged_binding_and_a_forwarded_one_get_no_certificate(
    service: Agent, become: Callable[..., Guests]
) -> None:
    from dataclasses import replace

    real = bind_of(SERVER, b"session")
    forged = (
        replace(real, session_id=b"another session"),
        replace(real, signature=bind_of(Key(), b"session").signature),
        bind_of(SERVER, b"session", forwarding=True),
    )
    alice = become(service, ALICE)
    for number, bind in enumerate(forged):
        request = frame(Extension("session-bind@openssh.com", bind.encode()).encode())
        alice.ask(request, str(number))
        assert alice.ask(LIST_REQUEST, str(number)) == [LISTED + bytes(4)]
    assert "certificate issued" not in service.log


def test_a_guest_has_64_connections(service: Agent, become: Callable[..., Guests]) -> None:
    alice, bob = become(service, ALICE), become(service, BOB)
    assert alice.do("crowd", 200, LIST_REQUEST.hex()) == ["64"]
    assert [one is not None for one in bob.certificates()] == [True]
    assert service.ssh_add("-L").status == 0
    assert f"user {ALICE} has 64 connections" in service.log
    assert alice.do("leave") == ["left"]
    assert alice.ask(LIST_REQUEST)[0][:1] == LISTED


@pytest.mark.parametrize("what", ["list", "sign", "bind", "refused"])
def test_a_guest_that_floods_starves_nobody(what: str, service: Agent, become: Callable[..., Guests]) -> None:
    """Without end, on all connections that it may have, and without waiting for the replies."""
    alice, bob = become(service, ALICE), become(service, BOB)
    (certificate,) = alice.certificates()
    assert certificate is not None
    messages = {
        "list": LIST_REQUEST,
        "sign": sign_request(certificate.encode()),
        "bind": BIND,
        "refused": frame(b"\x13"),
    }
    alice.begin("flood", 4, 60, messages[what].hex())
    longest, began, rounds = 0.0, time.monotonic(), 0
    while time.monotonic() < began + 3:
        before = time.monotonic()
        (his,) = bob.certificates(f"round{rounds}")
        assert his is not None
        assert service.ssh_add("-L").status == 0
        longest = max(longest, time.monotonic() - before)
        bob.do("leave")
        rounds += 1
    assert int(alice.ended()[0]) > 0
    assert rounds > 1
    assert longest < 2, f"{longest:.2f} s"
    # All is in the log, but no more of it than has room there: 600 signatures a minute, and 200 refusals.
    assert len(service.log.splitlines()) < 1000


@pytest.mark.skipif(os.geteuid() != 0, reason="the agent's own process is not known to others")
def test_200_guests_leave_nothing_behind(service: Agent, become: Callable[..., Guests]) -> None:
    """Each logs in again and again; once their certificates have ended, the agent is as it was."""
    everybody = become(service, *range(FIRST, FIRST + COUNT))
    footprints = []
    for _ in range(3):
        found = everybody.certificates()
        assert len({one.serial for one in found if one is not None}) == COUNT
        assert everybody.do("leave") == ["left"] * COUNT
        time.sleep(LIFETIME)
        # The next certificate that is made drops the keys of all whose time is over.
        assert everybody.ask(LIST_REQUEST) == [LISTED + bytes(4)] * COUNT
        assert everybody.do("leave") == ["left"] * COUNT
        footprints.append(Footprint.of(service))
    first, last = footprints[1], footprints[-1]
    assert (last.descriptors, last.threads, last.processes) <= (
        first.descriptors,
        first.threads,
        first.processes,
    )
    assert last.memory < first.memory * 1.05 + 1, footprints
