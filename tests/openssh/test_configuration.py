"""What the configuration file says of tokens, with the real programs on SoftHSM."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rigs.agent import Agent, StartAgent
from rigs.askpass import Askpass
from rigs.faulty import Faulty
from rigs.home import Home
from rigs.key_files import certify, make_key, public_of
from rigs.softhsm import MODULE, PIN, Token
from rigs.sshd import USER, Server, only
from rigs.terminal import eventually

REPLUG = Path(sys.executable).with_name("replug")
CKR_PIN_INCORRECT = 0xA0
LOCK_PROMPTS = [("Enter lock password: ", "secret"), ("Again: ", "secret")]


def status(agent: Agent) -> dict[str, Any]:
    """What `replug status` says of the only token."""
    done = agent.run(REPLUG, "status", "--json")
    assert done.status == 0, done
    [token] = json.loads(done.out)["tokens"]
    said: dict[str, Any] = token
    return said


def comments(agent: Agent) -> list[str]:
    """The comments that ssh-add shows, in its order."""
    lines = agent.ssh_add("-L").out.splitlines()
    return [line.split(None, 2)[2] for line in lines if line.startswith(("ssh-", "ecdsa-"))]


def use(agent: Agent, public: Path) -> int:
    """The exit status of one signature."""
    return agent.ssh_add("-T", public).status


# A PIN that nobody types.


class WithPinFile:
    """An agent that reads the PIN of the counting module's token from a file."""

    def __init__(self, home: Home, faulty: Faulty, start_agent: StartAgent, pin: str) -> None:
        self.home, self.faulty = home, faulty
        self.file(pin)
        home.configure(
            f"""
            modules = []
            allowed_modules = "{home.folder}/*"
            [[token]]
            uri = "pkcs11:token=faulty"
            module = "{faulty.module}"
            pin_source = "file:{home.folder}/pin"
            """
        )
        self.agent = start_agent(env=faulty.env)

    def file(self, pin: str) -> None:
        """Puts a PIN into the file, as an administrator does."""
        self.home.write("pin.new", f"{pin}\n").replace(self.home.folder / "pin")

    def use(self) -> int:
        return use(self.agent, self.faulty.public)

    @property
    def logins(self) -> list[int]:
        return self.faulty.returns("C_Login")


def test_a_pin_from_a_file(home: Home, faulty: Faulty, start_agent: StartAgent) -> None:
    served = WithPinFile(home, faulty, start_agent, PIN)

    assert comments(served.agent) == ["faulty-p256"]
    assert served.logins == []
    assert [served.use(), served.use()] == [0, 0], served.agent.log
    assert served.logins == [0]


def test_a_wrong_pin_in_a_file_is_sent_once(home: Home, faulty: Faulty, start_agent: StartAgent) -> None:
    served = WithPinFile(home, faulty, start_agent, "654321")

    with ThreadPoolExecutor() as clients:
        assert list(clients.map(lambda _: served.use(), range(4))) == [1, 1, 1, 1]
    assert served.use() == 1
    assert served.logins == [CKR_PIN_INCORRECT]
    assert "put the right PIN there" in served.agent.run(REPLUG, "explain").out

    served.file(PIN)
    assert served.use() == 0, served.agent.log
    assert served.logins == [CKR_PIN_INCORRECT, 0]


def test_a_pin_whose_login_gets_no_answer_is_sent_once(
    home: Home, faulty: Faulty, start_agent: StartAgent
) -> None:
    """The module dies in C_Login, and may have spent a try before."""
    faulty.tell("C_Login", "crash")
    served = WithPinFile(home, faulty, start_agent, PIN)

    assert [served.use(), served.use()] == [1, 1]
    assert faulty.entered("C_Login") == 1

    faulty.tell("C_Login", None)
    served.file(PIN)
    assert served.use() == 0, served.agent.log


def test_a_locked_agent_does_not_log_in(home: Home, faulty: Faulty, start_agent: StartAgent) -> None:
    served = WithPinFile(home, faulty, start_agent, PIN)
    agent = served.agent
    assert agent.ssh_add("-x", typing=LOCK_PROMPTS).status == 0

    faulty.tell("out", "")
    scans = faulty.scans()
    faulty.tell("out", None)
    eventually(lambda: faulty.scans() > scans, "a look at the slots")
    assert served.use() == 1
    assert faulty.entered("C_Login") == 0

    assert agent.ssh_add("-X", typing=[("Enter lock password: ", "secret")]).status == 0
    assert served.use() == 0, agent.log


# What is said of keys.


@pytest.fixture
def other(home: Home, token: Token) -> Token:
    """A second token of the same module, with one key."""
    other = Token(home, "other")
    other.add("ed25519", "spare")
    return other


def test_filter_order_comment_and_confirmation_of_each_token(
    home: Home, token: Token, other: Token, start_agent: StartAgent, askpass: Askpass
) -> None:
    home.configure(
        f"""
        modules = "{MODULE}"
        [[token]]
        uri = "pkcs11:token=work"
        keys = ["rsa4096", "p*"]
        comment = "{{label}} on {{token}}"
        confirm = true
        """
    )
    agent = start_agent(env=askpass.env)

    shown = comments(agent)
    assert sorted(shown) == ["p256 on work", "p384 on work", "p521 on work", "rsa4096 on work", "spare"]
    assert next(comment for comment in shown if "work" in comment) == "rsa4096 on work"
    # Cancelled by the user, before any PIN.
    assert use(agent, token.public("p256")) == 1
    assert "Allow use of key p256 on work?" in askpass.text
    assert askpass.questions == []
    assert use(agent, token.public("ed25519")) == 1
    askpass.answers(PIN)
    assert use(agent, other.public("spare")) == 0, agent.log
    assert "Allow use of key spare" not in askpass.text


def test_what_the_user_added_is_tried_before_what_is_served_unasked(
    home: Home, token: Token, start_agent: StartAgent
) -> None:
    """A plugged-in token full of keys used to end in "Too many authentication failures"."""
    home.configure(f'modules = "{MODULE}"')
    agent = start_agent()
    assert len(comments(agent)) > 1
    added = make_key(home, "added")
    assert agent.ssh_add("-q", added).status == 0
    server = Server(home, "MaxAuthTries 2")
    server.authorize(public_of(added))
    assert server.login(agent).status == 0, server.log
    assert comments(agent)[0] == "added"


def test_the_lifetime_of_a_tokens_keys(
    home: Home, token: Token, other: Token, start_agent: StartAgent, askpass: Askpass
) -> None:
    """And of its PIN; the other token's stay."""
    home.configure(f'modules = "{MODULE}"\n[[token]]\nuri = "pkcs11:token=other"\nlifetime = "3s"')
    askpass.answers(PIN)
    agent = start_agent(env=askpass.env)

    eventually(lambda: "spare" not in comments(agent), "the end of the other token's keys")
    assert "other" in agent.log
    assert len(comments(agent)) == 6
    assert use(agent, other.public("spare")) == 1
    assert askpass.questions == []
    assert use(agent, token.public("p256")) == 0, agent.log


def test_the_time_to_live_of_a_pin(
    home: Home, token: Token, start_agent: StartAgent, askpass: Askpass
) -> None:
    home.configure(f'modules = "{MODULE}"\npin_time_to_live = "2s"')
    askpass.answers(PIN)
    agent = start_agent(env=askpass.env)
    public = token.public("p256")

    assert use(agent, public) == 0, agent.log
    eventually(lambda: not status(agent)["pin_remembered"], "the end of the PIN")
    assert status(agent)["pin_expires_in"] is None
    asked = len(askpass.questions)
    assert use(agent, public) == 0, agent.log
    assert len(askpass.questions) == asked + 1


def test_workers(home: Home, faulty: Faulty, start_agent: StartAgent, askpass: Askpass) -> None:
    """Two make two signatures at the same time."""
    home.configure(
        f"""
        modules = []
        allowed_modules = "{home.folder}/*"
        [[token]]
        uri = "pkcs11:token=faulty"
        module = "{faulty.module}"
        workers = 2
        """
    )
    askpass.answers(PIN)
    agent = start_agent(env=faulty.env | askpass.env)
    assert use(agent, faulty.public) == 0, agent.log

    # Neither returns before it is told to, so that both are under way at once or never.
    before = faulty.entered("C_Sign")
    faulty.tell("C_Sign", "hang")
    with ThreadPoolExecutor() as clients:
        signing = [clients.submit(use, agent, faulty.public) for _ in range(2)]
        faulty.await_calls("C_Sign", before + 2)
        hanging = faulty.processes_in("C_Sign", 2)
        assert len(hanging) == 2
        faulty.tell("C_Sign", None)
        for pid in hanging:
            os.kill(pid, signal.SIGKILL)
        assert [done.result() for done in signing] == [0, 0], agent.log


# Certificates.


def test_certificates_are_found_and_renewed(
    home: Home, token: Token, start_agent: StartAgent, askpass: Askpass
) -> None:
    askpass.answers(PIN)
    ca, public = make_key(home, "ca"), token.public("p256")
    server = Server(home, f"TrustedUserCAKeys {public_of(ca)}", "AuthorizedKeysFile none")
    home.configure(f'modules = "{MODULE}"\ncertificates = ["~/*-cert.pub"]')
    home.write("garbage-cert.pub", b"\xff\xfe")
    agent = start_agent(env=askpass.env)
    assert len(comments(agent)) == 6

    def listed(certificate: str) -> bool:
        return certificate in agent.ssh_add("-L").out

    blobs = []
    for principal in ("somebody-else", USER):
        path = certify(home, ca, public, "-n", principal)
        blobs.append(path.read_text().split()[1])
        eventually(lambda: listed(blobs[-1]), "the certificate is listed")
        assert len(comments(agent)) == 7
    assert not listed(blobs[0])
    alone = home.write("alone.pub", path.read_text())
    done = server.login(agent, *only(alone))
    assert (done.status, done.out) == (0, f"in {USER}\n"), (done, server.log, agent.log)

    path.unlink()
    eventually(lambda: len(comments(agent)) == 6, "the certificate is gone")


# Removal, and what brings it back.


@pytest.fixture
def service_manager(home: Home) -> Iterator[dict[str, str]]:
    """What a service has in its environment, by which the agent knows what SIGHUP means."""
    path = home.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        yield {"NOTIFY_SOCKET": str(path)}


def test_what_was_removed_is_back_when_the_file_is_read_again(
    home: Home, token: Token, start_agent: StartAgent, service_manager: dict[str, str]
) -> None:
    home.configure(f'modules = "{MODULE}"')
    agent = start_agent(env=service_manager)
    assert len(comments(agent)) == 6

    for removal, left in (
        (("-d", token.public("p256")), 5),
        (("-e", MODULE), 0),
        (("-D",), 0),
    ):
        assert agent.ssh_add(*removal).status == 0
        assert len(comments(agent)) == left
        agent.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(comments(agent)) == 6, "the keys are back")


def test_a_new_comment_and_filter_hold_once_the_file_is_read_again(
    home: Home, token: Token, start_agent: StartAgent, service_manager: dict[str, str]
) -> None:
    home.configure(f'modules = "{MODULE}"')
    agent = start_agent(env=service_manager)
    assert len(comments(agent)) == 6

    home.configure(
        f'modules = "{MODULE}"\n[[token]]\nuri = "pkcs11:token=work"\nkeys = ["p256"]\ncomment = "new"'
    )
    agent.process.send_signal(signal.SIGHUP)

    eventually(lambda: comments(agent) == ["new"], "what the file says now")
