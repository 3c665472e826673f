"""No program of the same user reads a PIN or a private key out of the agent, however it was started.

The attacker runs before the agent does, and opens the memory of each process the moment that appears.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
from rigs.root import as_root
from rigs.softhsm import KINDS, MODULE, SO_PIN
from rigs.terminal import eventually
from rigs.user_manager import UserManager

PROGRAM = Path(sys.executable).with_name("replug-agent")
LOCK_PROMPT = "Enter lock password: "
USE_BOTH = """
ssh-add -L >listed; test $(wc -l <listed) = 2
sed -n 1p listed >one.pub; sed -n 2p listed >other.pub
ssh-add -T one.pub other.pub
"""
LogIn = Callable[[], UserManager]


# Each starts an agent in a session, and returns its socket.
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


def test_no_program_of_the_user_reads_a_secret(
    home: Home, log_in: LogIn, attack: Callable[[UserManager], Attacker], pin: str, seed: bytes
) -> None:
    session = log_in()
    attacker = attack(session)
    sockets = [start(session) for start in (as_service, as_daemon, in_foreground, with_command)]
    assert len(set(sockets)) == len(sockets)
    # Half of each is enough: in the middle, as what keeps them may add something at the ends.
    sought = {"PIN": pin.encode()[8:24], "key": seed[8:24]}

    def with_each(script: str, *typing: tuple[str, str]) -> None:
        """Runs it with each agent; what is typed, too."""
        loop = f"for SSH_AUTH_SOCK in {' '.join(sockets)}; do export SSH_AUTH_SOCK\n{script}\ndone"
        done = session.run("sh", "-euc", loop, typing=typing * len(sockets))
        assert done.status == 0, done

    def nothing_is_found(when: str) -> None:
        # What clients were given is theirs: they have ended.
        assert attacker.found(sought) == {}, when

    with_each(f"ssh-add -s {MODULE}; ssh-add -q key", (PIN_PROMPT, pin))
    with_each(USE_BOTH)
    nothing_is_found("after adding")

    token, pulled = next((home.folder / "tokens").iterdir()), home.folder / "pulled"
    token.rename(pulled)
    kill_workers(session)
    with_each("""
        grep nistp256 listed >one.pub
        if ssh-add -T one.pub; then exit 3; fi
        if ssh-add -L | grep nistp256; then exit 4; fi
    """)
    nothing_is_found("while the token is out")
    pulled.rename(token)
    with_each("for try in $(seq 300); do ! ssh-add -L | grep -q nistp256 || break; sleep 0.1; done")
    with_each(USE_BOTH)
    nothing_is_found("after the token was plugged in again")

    with_each("ssh-add -x", (LOCK_PROMPT, "sesame"), ("Again: ", "sesame"))
    nothing_is_found("while it is locked")
    with_each("ssh-add -X", (LOCK_PROMPT, "sesame"))
    with_each(USE_BOTH)
    nothing_is_found("after unlocking")

    with_each("ssh-add -q -d key.pub; ssh-add -q key")
    with_each(USE_BOTH)
    nothing_is_found("after removing and adding")


def test_nor_out_of_keygen(
    home: Home, log_in: LogIn, attack: Callable[[UserManager], Attacker], pin: str
) -> None:
    """The attacker is there before it starts, and searches while a key is made, which takes a moment."""
    home.write("pin", pin)
    home.write("askpass", "#!/bin/sh\ncat ~/pin\ntouch ~/asked\n", 0o700)
    session = log_in()
    attacker = attack(session)
    asks = {"SSH_ASKPASS": str(session.folder / "askpass"), "SSH_ASKPASS_REQUIRE": "force"}
    command = ("keygen", "--type", "rsa4096", f"pkcs11:?module-path={MODULE}")
    with ThreadPoolExecutor() as other:
        making = other.submit(session.replug, *command, env=asks)
        eventually(lambda: making.done() or (home.folder / "asked").exists(), "the question", 30)
        ended = False
        while not ended:
            ended = making.done()
            assert attacker.found({"PIN": pin.encode()[8:24]}) == {}
    assert making.result().status == 0, making.result()


def kill_workers(session: UserManager) -> None:
    """All processes that have the token's module in them."""
    processes = [pid for pid in session.processes() if has_module(pid)]
    assert processes
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(has_module(pid) for pid in processes), "their end")


def has_module(pid: int) -> bool:
    try:
        # The user who runs the tests may be the one who is refused this.
        return MODULE.name in as_root("cat", f"/proc/{pid}/maps")
    except subprocess.CalledProcessError:  # it has ended
        return False
