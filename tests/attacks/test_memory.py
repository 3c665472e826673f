"""No program of the same user reads a PIN or a private key out of the agent, however it was started.

The attacker runs before the agent does, and opens the memory of each process the moment that appears.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)
from rigs.agent import PIN_PROMPT
from rigs.attacker import Attacker
from rigs.home import Home
from rigs.softhsm import KINDS, MODULE, SO_PIN
from rigs.terminal import Done, eventually
from rigs.user_manager import UserManager

PROGRAM = Path(sys.executable).with_name("replug-agent")
LOCK_PROMPT = "Enter lock password: "
LogIn = Callable[[], UserManager]
Start = Callable[[UserManager], str]
"""Starts an agent in a session; its socket."""


def as_service(session: UserManager) -> str:
    assert session.replug("setup").status == 0
    return session.environment()["SSH_AUTH_SOCK"]


def as_daemon(session: UserManager) -> str:
    return socket_in(session.run(PROGRAM, "-s").out)


def in_foreground(session: UserManager) -> str:
    agent = session.start(PROGRAM, "-D")
    assert agent.stdout
    return socket_in(agent.stdout.readline().decode())


def with_command(session: UserManager) -> str:
    command = session.start(PROGRAM, "sh", "-c", "echo SSH_AUTH_SOCK=$SSH_AUTH_SOCK; exec sleep 1000")
    assert command.stdout
    return socket_in(command.stdout.readline().decode())


def socket_in(lines: str) -> str:
    return lines.removeprefix("SSH_AUTH_SOCK=").splitlines()[0].partition(";")[0]


@pytest.fixture
def pin(home: Home) -> str:
    """That of a new token with a P-256 key; it is nowhere else in the world."""
    pin = secrets.token_hex(16)
    tool = ("softhsm2-util", "--pin", pin)
    assert home.run(*tool, "--init-token", "--free", "--label", "work", "--so-pin", SO_PIN).status == 0
    pem = KINDS["p256"]().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = home.write("p256.pem", pem)
    assert home.run(*tool, "--import", path, "--token", "work", "--label", "p256", "--id", "01").status == 0
    path.unlink()
    return pin


@pytest.fixture
def seed(home: Home) -> bytes:
    """That of a new key in the file `key`."""
    path = home.folder / "key"
    assert home.run("ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", path).status == 0
    key = load_ssh_private_key(path.read_bytes(), None)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return key.private_bytes_raw()


@pytest.mark.parametrize("start", [as_service, as_daemon, in_foreground, with_command])
def test_no_program_of_the_user_reads_a_secret(
    start: Start,
    log_in: LogIn,
    attack: Callable[[UserManager], Attacker],
    pin: str,
    seed: bytes,
) -> None:
    session = log_in()
    attacker = attack(session)
    agent = {"SSH_AUTH_SOCK": start(session)}
    # Half of each is enough: in the middle, as what keeps them may add something at the ends.
    sought = {"PIN": pin.encode()[8:24], "key": seed[8:24]}

    def ssh_add(*arguments: str, typing: tuple[tuple[str, str], ...] = ()) -> None:
        done = session.run("ssh-add", *arguments, env=agent, typing=typing)
        assert done.status == 0, done

    def use_all() -> None:
        listed = session.run("ssh-add", "-L", env=agent)
        assert len(listed.lines) == 2, listed
        for line in listed.lines:
            session.run("tee", "listed.pub", text=line + "\n")
            assert session.run("ssh-add", "-T", "listed.pub", env=agent) == Done(0, "", "")

    def nothing_is_found(when: str) -> None:
        # What clients were given is theirs: they have ended.
        assert attacker.found(sought) == {}, when

    ssh_add("-s", str(MODULE), typing=((PIN_PROMPT, pin),))
    ssh_add("-q", "key")
    use_all()
    nothing_is_found("after adding")

    kill_workers(session)
    use_all()
    nothing_is_found("after the workers were killed")

    ssh_add("-x", typing=((LOCK_PROMPT, "sesame"), ("Again: ", "sesame")))
    nothing_is_found("while it is locked")
    ssh_add("-X", typing=((LOCK_PROMPT, "sesame"),))
    use_all()
    nothing_is_found("after unlocking")

    ssh_add("-q", "-d", "key.pub")
    ssh_add("-q", "key")
    use_all()
    nothing_is_found("after removing and adding")


def kill_workers(session: UserManager) -> None:
    """All processes that have the token's module in them."""
    processes = [pid for pid in session.processes() if has_module(pid)]
    assert processes
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(has_module(pid) for pid in processes), "their end")


def has_module(pid: int) -> bool:
    try:
        mapped = Path(f"/proc/{pid}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return MODULE.name in mapped
