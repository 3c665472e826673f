"""Certificates just in time: ssh logs in at a real sshd that trusts a CA on a token, and no key."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rigs.agent import Agent, StartAgent
from rigs.askpass import Askpass
from rigs.home import Home
from rigs.softhsm import MODULE, PIN, Token
from rigs.sshd import USER, Server

REPLUG = Path(sys.executable).with_name("replug")
IN = f"in {USER}\n"


@pytest.fixture
def ca(home: Home) -> Token:
    """A token with CA keys: `p256` and, where a test adds them, others."""
    token = Token(home, "ssh_ca")
    token.add("p256")
    return token


@pytest.fixture
def askpass(home: Home) -> Askpass:
    """Who knows the PIN."""
    askpass = Askpass(home)
    askpass.answers(PIN)
    return askpass


def fingerprint(home: Home, public: Path) -> str:
    """The fingerprint of a .pub file, as the configuration has it."""
    return home.run("ssh-keygen", "-lf", public).out.split()[1]


def trusting(home: Home, *publics: Path, name: str = "host", settings: Sequence[str] = ()) -> Server:
    """A server that trusts these CA keys, and no key of anybody."""
    trusted = home.write(f"{name}.trusted", "".join(public.read_text() for public in publics), 0o644)
    return Server(home, f"TrustedUserCAKeys {trusted}", "ExposeAuthInfo yes", *settings, name=name)


def rule(home: Home, server: Server, *publics: Path, **settings: str) -> str:
    """A `[[certificate]]` for logins as ourselves at one server."""
    keys = ", ".join(f'"{fingerprint(home, public)}"' for public in publics)
    lines = [
        "[[certificate]]",
        f"ca = [{keys}]",
        f'hosts = ["{fingerprint(home, server.host_key)}"]',
        f'principals = ["{USER}"]',
    ]
    return "\n".join([*lines, *(f"{name} = {value}" for name, value in settings.items())])


def configure(home: Home, *rules: str, above: str = "") -> None:
    """The configuration, in which SoftHSM is served."""
    home.configure("\n".join([f'modules = ["{MODULE}"]', above, *rules]))


def listed(agent: Agent) -> list[str]:
    """The lines of `ssh-add -l`, in order."""
    return [line for line in agent.ssh_add("-l").out.splitlines() if line[:1].isdigit()]


def logged(agent: Agent, words: str) -> list[str]:
    """The lines of the agent's log with these words."""
    return [line for line in agent.log.splitlines() if words in line]


def status(agent: Agent) -> dict[str, Any]:
    """What `replug status --json` says."""
    said: dict[str, Any] = json.loads(agent.run(REPLUG, "status", "--json").out)
    return said


def test_ssh_logs_in_with_an_empty_authorized_keys(
    home: Home, ca: Token, askpass: Askpass, start_agent: StartAgent
) -> None:
    server = trusting(home, ca.public("p256"))
    configure(home, rule(home, server, ca.public("p256")))
    agent = start_agent(env=askpass.env)
    assert [line.rpartition(" ")[2] for line in listed(agent)] == ["(ECDSA)"]

    logins = [server.login(agent) for _ in range(2)]

    assert [(done.status, done.out) for done in logins] == [(0, IN)] * 2, (logins, server.log, agent.log)
    assert len(askpass.questions) == 1
    assert "certificate for a login at " in askpass.text
    (issued,) = logged(agent, "certificate issued")
    serial = re.search(r" serial=(\d{15}) ", issued)
    assert serial is not None
    for field in (f"principals={USER}", "valid_for=600", "uid=", "key_id=", "destination="):
        assert field in issued
    assert f"serial {serial[1]}) CA ECDSA {fingerprint(home, ca.public('p256'))}" in server.log
    first, second = listed(agent)
    assert first.endswith(f" serial {serial[1]} (ED25519-CERT)")
    assert second.endswith(" (ECDSA)")
