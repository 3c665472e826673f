"""Attacks on what the user reads: question, log and `replug explain` name what is signed, for whom.

Root of a host uses the agent that is forwarded there by a real ssh, or a program says by itself where it is.
"""

from __future__ import annotations

import re
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from attacks.largest import destination, destinations, hop
from doubles.private_keys import ed25519_key, message
from doubles.session_hosts import bind_of
from doubles.stand_ins import Key
from rigs.agent import Agent, Connection, StartAgent, frame, sign_request, string
from rigs.home import Home
from rigs.key_files import blob_of, make_key, public_of
from rigs.sshd import USER, Server, only

from replug.protocol.extensions import SESSION_BIND, SessionBind
from replug.protocol.keys import fingerprint
from replug.protocol.userauth import UserauthRequest

REPLUG = Path(sys.executable).with_name("replug")
ASKPASS = '#!/bin/sh\nprintf "%s\\n--\\n" "$1" >>"$QUESTIONS"\ntest -e "$QUESTIONS.yes"\n'
SUCCESS, SIGN_RESPONSE, EXTENSION, EXTENSION_FAILURE = b"\x06", b"\x0e", b"\x1b", b"\x1c"


@dataclass
class User:
    """A user with a key, an agent that asks as `confirm` says, and a program that asks."""

    home: Home
    agent: Agent
    key: Path
    answers: Path

    @property
    def questions(self) -> list[list[str]]:
        """The lines of each question so far."""
        text = self.answers.read_text() if self.answers.exists() else ""
        return [question.splitlines() for question in text.split("--\n")[:-1]]

    def agrees(self) -> None:
        """Answer yes from now on."""
        self.answers.with_suffix(".yes").touch()

    @property
    def public(self) -> Path:
        return public_of(self.key)

    def logged(self, outcome: str) -> list[str]:
        """The purposes in the log lines with this outcome."""
        lines = [line for line in self.agent.log.splitlines() if f" {outcome} " in line]
        return [found[1] for line in lines if (found := re.search(r'purpose="((?:[^"\\]|\\.)*)"', line))]

    def explained(self) -> str:
        """What `replug explain` says, on one line."""
        return " ".join(self.agent.run(REPLUG, "explain").out.split())


@pytest.fixture
def user(request: pytest.FixtureRequest, home: Home, start_agent: StartAgent) -> User:
    """A user who always answers no, unless the test says otherwise; `confirm` is the parameter, or true."""
    home.configure(f"modules = []\nconfirm = {getattr(request, 'param', 'true')}\n")
    questions = home.folder / "questions"
    agent = start_agent(
        env={
            "SSH_ASKPASS": str(home.write("askpass", ASKPASS, 0o700)),
            "SSH_ASKPASS_REQUIRE": "force",
            "QUESTIONS": str(questions),
        }
    )
    key = make_key(home, "key")
    assert agent.ssh_add("-q", key).status == 0
    return User(home, agent, key, questions)


def fingerprint_of(home: Home, public: Path) -> str:
    return home.run("ssh-keygen", "-l", "-f", public).out.split()[1]


@pytest.mark.parametrize("comment", ["<table>", "a <font size=0> b", "&lt;"])
def test_a_name_makes_no_dialog_take_the_question_for_html(user: User, home: Home, comment: str) -> None:
    """Qt's dialogs do, with a tag in the first line: then others' names in the next ones hide the rest."""
    key = make_key(home, "marked")
    assert home.run("ssh-keygen", "-c", "-q", "-P", "", "-C", comment, "-f", key).status == 0
    assert user.agent.ssh_add("-q", key).status == 0

    assert user.agent.ssh_add("-T", public_of(key)).status != 0

    [[first, *_]] = user.questions
    assert first.startswith("Allow use of key ")
    assert "<" not in first
    assert "&lt;" not in first


@pytest.mark.parametrize("user", ['"other"'], indirect=True)
def test_a_hosts_root_cannot_pass_a_signature_or_a_certificate_off_as_a_login(
    user: User, home: Home, server: Server
) -> None:
    server.authorize(user.public)
    home.write("commit", "signed\n")
    evil = public_of(make_key(home, "evil"))
    sign = f"ssh-keygen -q -Y sign -n git -f {user.public} {home.folder}/commit"
    certify = f"ssh-keygen -q -U -s {user.public} -I evil -n root -V +520w {evil}"
    options = ("-A", *only(user.public))

    signed = server.login(user.agent, *options, command=sign)
    certified = server.login(user.agent, *options, command=certify)

    # The logins themselves needed no yes; what was asked for on the host did, and did not get it.
    login = f"login at the host with key {fingerprint_of(home, server.host_key)}"
    assert [purpose.startswith(login) for purpose in user.logged("signed")] == [True, True], user.agent.log
    assert (signed.status, certified.status) != (0, 0)
    assert not (home.folder / "commit.sig").exists()
    assert not (home.folder / "evil-cert.pub").exists()
    over = f"for a program on the host with key {fingerprint_of(home, server.host_key)} "
    signature, certificate = user.questions
    assert signature[2] == "SSHSIG signature, not a login"
    assert signature[3].startswith(over)
    assert signature[3].endswith(", over the forwarded agent")
    assert signature[4] == "namespace git"
    assert re.fullmatch(
        r"user certificate, valid (from .* )?until .* \(36\d\d days from now\)", certificate[2]
    )
    assert certificate[3].startswith(over)
    assert certificate[4:6] == ["for root", "key id evil"]
    # The same words everywhere.
    explained = user.explained()
    for question, logged in zip(user.questions, user.logged("refused"), strict=True):
        purpose = ", ".join(question[2:-1])
        assert logged == purpose
        assert purpose in explained


def test_by_default_a_certificate_for_a_far_host_is_signed_and_named(
    start_agent: StartAgent, home: Home, server: Server
) -> None:
    """As OpenSSH's agent does; only the log tells."""
    agent, key = start_agent(), make_key(home, "key")
    assert agent.ssh_add("-q", key).status == 0
    server.authorize(public_of(key))
    evil = public_of(make_key(home, "evil"))

    done = server.login(
        agent, "-A", *only(public_of(key)), command=f"ssh-keygen -q -U -s {public_of(key)} -I evil {evil}"
    )

    assert done.status == 0, (done, agent.log)
    assert 'purpose="user certificate for ANY USER, valid FOREVER, for a program on ' in agent.log


@pytest.mark.parametrize("user", ['"forwarded"'], indirect=True)
def test_a_login_from_a_host_beyond_needs_a_yes_and_one_from_here_does_not(user: User, home: Home) -> None:
    outer, inner = Server(home, name="outer"), Server(home, name="inner")
    for host in (outer, inner):
        host.authorize(user.public)
    options = ("-A", *only(user.public))

    done = outer.login(user.agent, *options, command=shlex.join(inner.ssh(*options, command="echo in")))

    assert "in\n" not in done.out
    [question] = user.questions
    assert question[2].startswith(f"login at the host with key {fingerprint_of(home, inner.host_key)} ")
    assert question[3].startswith(
        f"for a program on the host with key {fingerprint_of(home, outer.host_key)} "
    )
    assert question[4] == f"as {USER}"
    assert user.agent.run(REPLUG, "explain").out.count("login at") == 1


def bind(connection: Connection, session: SessionBind) -> None:
    request = EXTENSION + string(SESSION_BIND.encode()) + session.encode()
    assert connection.ask(frame(request))[:1] == SUCCESS


def login(user: User, name: str) -> bytes:
    data = UserauthRequest(b"s", name, "ssh-ed25519", blob_of(user.public)).encode()
    return sign_request(blob_of(user.public), data)


def test_a_host_that_binds_a_third_hosts_session_is_named_itself(user: User) -> None:
    """It holds a hop of its own, and the session of another host that it has a connection to."""
    mallory, bank = Key(), Key()
    with user.agent.connect() as connection:
        # The user's ssh says where the agent is forwarded to; what comes next is what Mallory's programs say.
        bind(connection, bind_of(mallory, b"f", forwarding=True))
        bind(connection, bind_of(Key(), b"own", forwarding=True))
        bind(connection, bind_of(bank, b"s"))
        assert connection.ask(login(user, "alice"))[:1] != SIGN_RESPONSE
    [question] = user.questions
    assert question[2].startswith(f"login at the host with key {fingerprint(bank.blob)} ")
    assert question[3].startswith(f"for a program on the host with key {fingerprint(mallory.blob)} ")
    assert question[4].startswith("which reports further hops: ")


@pytest.mark.parametrize("user", ['"forwarded"'], indirect=True)
def test_a_host_whose_key_is_of_an_unknown_type_cannot_pass_for_this_machine(user: User) -> None:
    """The bind of the user's ssh does not hold, as the host chose its key; then the host makes its own."""
    unknown = SessionBind(
        string(b"ssh-future") + string(b"k"), b"f", string(b"signature"), is_forwarding=True
    )
    with user.agent.connect() as connection:
        request = EXTENSION + string(SESSION_BIND.encode()) + unknown.encode()
        assert connection.ask(frame(request))[:1] == EXTENSION_FAILURE
        bind(connection, bind_of(Key(), b"s"))
        assert connection.ask(login(user, "alice"))[:1] != SIGN_RESPONSE
    [question] = user.questions
    assert "through a connection whose sessions could not be verified" in question


def test_a_host_does_not_name_itself_by_the_constraints_of_a_key_it_adds(user: User) -> None:
    near, evil = Key(), Key()
    key = ed25519_key()
    to_near = destination(b"", b"near", [near.blob])
    to_bank = destination(b"", b"bank", [evil.blob], start=hop(b"", b"near", [near.blob]))
    with user.agent.connect() as connection:
        bind(connection, bind_of(near, b"f", forwarding=True))
        added = b"\x19" + bytes(message(key))[1:] + destinations([to_near, to_bank])
        assert connection.ask(frame(added)) == SUCCESS
        bind(connection, bind_of(evil, b"s"))
        data = UserauthRequest(b"s", "alice", "ssh-ed25519", key.blob, evil.blob).encode()
        assert connection.ask(sign_request(key.blob, data))[:1] != SIGN_RESPONSE
    [question] = user.questions
    assert question[2] == (
        f"login at the host with key {fingerprint(evil.blob)} "
        "(not in known_hosts; the key's constraints call it bank)"
    )


def test_a_program_that_binds_to_hosts_of_its_own_making_is_one_program(user: User) -> None:
    """Else it would be asked for again at once, whatever the user answers."""
    requests = 0
    until = time.monotonic() + 3
    while time.monotonic() < until:
        with user.agent.connect() as connection:
            bind(connection, bind_of(Key(), b"f", forwarding=True))
            assert connection.ask(sign_request(blob_of(user.public)))[:1] != SIGN_RESPONSE
            requests += 1
    assert requests > 10
    assert len(user.questions) < 5


def test_a_connection_keeps_little_of_the_hosts_it_is_bound_to(user: User) -> None:
    """Else a few hundred connections fill the memory with host certificates of the largest size."""
    large = string(bytes(33_000)) + string(b"s") + string(b"signature") + b"\1"
    with user.agent.connect() as connection:
        request = EXTENSION + string(SESSION_BIND.encode()) + large
        assert connection.ask(frame(request))[:1] == EXTENSION_FAILURE
    assert "host key of more than 32768 bytes" in user.agent.log


def test_a_certificate_is_named_though_it_is_asked_for_by_a_certificate_of_the_ca(
    user: User, home: Home
) -> None:
    """Whoever sees the list has both names of the key, and a signature by either is the CA's."""
    ca = make_key(home, "ca")
    certify = ("ssh-keygen", "-q", "-s", ca, "-I", "own", "-n", "alice")
    assert home.run(*certify, public_of(ca)).status == 0
    assert user.agent.ssh_add("-q", ca).status == 0
    evil = public_of(make_key(home, "evil"))
    assert home.run(*certify[:4], "-I", "evil", "-n", "root", evil).status == 0
    made = blob_of(home.folder / "evil-cert.pub")
    unsigned = made[: made.rindex(string(b"ssh-ed25519")) - 4]
    with user.agent.connect() as connection:
        request = sign_request(blob_of(home.folder / "ca-cert.pub"), unsigned)
        assert connection.ask(request)[:1] != SIGN_RESPONSE
    [question] = user.questions
    assert question[2:4] == ["user certificate, valid FOREVER", "for root"]


def test_blank_characters_push_nothing_out_of_sight(user: User) -> None:
    server = Key()
    user.agrees()
    with user.agent.connect() as connection:
        bind(connection, bind_of(server, b"s"))
        for blank in ("\u2800", "\u3164", "\u115f", "\u00a0", "\u200b", " "):
            name = f"alice{blank * 105}(login at the host with key SHA256:safe)"
            assert connection.ask(login(user, name))[:1] == SIGN_RESPONSE
            question = user.questions[-1]
            assert question[2].startswith(f"login at the host with key {fingerprint(server.blob)} ")
            assert question[3].startswith('as "alice')
            assert "safe" not in question[3]
            assert len(question[3]) < 110
            assert all(line.isascii() and line.isprintable() for line in question)
            assert user.logged("signed")[-1].startswith(question[2])
    assert len(user.questions) == 6


def test_a_keys_name_neither_pushes_nor_covers_the_facts(user: User, home: Home) -> None:
    """Any client can name a key, a forwarded one too."""
    key = make_key(home, "named")
    user.agrees()
    comments = ("x" * 4000, "\u2800" * 105, "e" + "\u0301" * 200, "a\nlogin at safe", "trusted\u034f")
    for comment in comments:
        assert home.run("ssh-keygen", "-q", "-c", "-C", comment, "-f", key).status == 0
        assert user.agent.ssh_add("-q", key).status == 0
        with user.agent.connect() as connection:
            assert connection.ask(sign_request(blob_of(public_of(key))))[:1] == SIGN_RESPONSE
        question = user.questions[-1]
        assert len(question[0]) < 120
        assert "login at" not in question[0] or question[0].startswith('Allow use of key "a\\x0alogin')
        assert "\u0301" * 3 not in question[0]
        assert not {"\u2800", "\u034f"} & set(question[0])
        assert question[1].startswith("Key fingerprint SHA256:")
        assert question[2] == "something that is not a login: 4 bytes of no known form"
    assert len(user.questions) == len(comments)
