"""What is left of PINs and private keys in the memory of the agent and its processes (docs/security.md)."""

from __future__ import annotations

import secrets
import sys
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)
from rigs import memory
from rigs.agent import Agent, StartAgent
from rigs.askpass import Askpass
from rigs.home import Home
from rigs.root import may_be_root
from rigs.softhsm import KINDS, MODULE, PIN, SO_PIN, Token
from rigs.sshd import USER, Server
from rigs.terminal import eventually

from replug.protocol.certificates import Certificate

REPLUG = Path(sys.executable).with_name("replug")
KEY_TYPES = {"ed25519": ("-t", "ed25519"), "ecdsa": ("-t", "ecdsa"), "rsa": ("-t", "rsa", "-b", "2048")}


@pytest.fixture(autouse=True)
def _root() -> None:
    if not may_be_root():
        pytest.skip("needs root, or sudo without a password: it reads the memory of processes that refuse it")


class Secrets:
    """A token with a PIN that is nowhere else in the world, and key files."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.pins: dict[str, list[bytes]] = {}
        self.keys: dict[str, list[bytes]] = {}
        self.files: list[Path] = []

    def make_token(self, label: str) -> str:
        """A token with a P-256 key; its PIN."""
        pin = secrets.token_hex(16)
        self.pins[f"PIN of {label}"] = memory.pieces_of_bytes(pin.encode())
        tool = ("softhsm2-util", "--pin", pin)
        done = self.home.run(*tool, "--init-token", "--free", "--label", label, "--so-pin", SO_PIN)
        assert done.status == 0, done
        pem = KINDS["p256"]().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = self.home.write(f"{label}.pem", pem)
        done = self.home.run(*tool, "--import", path, "--token", label, "--label", label, "--id", "01")
        assert done.status == 0, done
        return pin

    def make_key(self, kind: str) -> Path:
        path = self.home.folder / f"key-{kind}"
        done = self.home.run("ssh-keygen", "-q", "-N", "", *KEY_TYPES[kind], "-f", path)
        assert done.status == 0, done
        match load_ssh_private_key(path.read_bytes(), None):
            case ed25519.Ed25519PrivateKey() as key:
                self.keys["ed25519 seed"] = memory.pieces_of_bytes(key.private_bytes_raw())
            case ec.EllipticCurvePrivateKey() as key:
                self.keys["ecdsa d"] = memory.pieces_of_number(key.private_numbers().private_value)
            case rsa.RSAPrivateKey() as key:
                numbers = key.private_numbers()
                for name in ("d", "p", "q"):
                    self.keys[f"rsa {name}"] = memory.pieces_of_number(getattr(numbers, name))
        self.files.append(path)
        return path


@pytest.fixture
def known(home: Home) -> Secrets:
    return Secrets(home)


@pytest.fixture
def agent_with_secrets(start_agent: StartAgent, known: Secrets, askpass: Askpass) -> Agent:
    """One token's PIN came with ssh-add -s, the other's from a prompt; three key files; all were used."""
    agent = start_agent(env=askpass.env)
    given, typed = known.make_token("given"), known.make_token("typed")
    assert agent.ssh_add("-s", "pkcs11:token=given?module-path=" + str(MODULE), typing=[
        ("Enter passphrase for PKCS#11: ", given)]).status == 0, agent.log  # fmt: skip
    assert agent.ssh_add("-s", "pkcs11:token=typed?module-path=" + str(MODULE), typing=[
        ("Enter passphrase for PKCS#11: ", "")]).status == 0, agent.log  # fmt: skip
    askpass.answers(typed)
    for kind in KEY_TYPES:
        assert agent.ssh_add(known.make_key(kind)).status == 0, agent.log
    use_all(agent)
    askpass.answers(None)
    return agent


def use_all(agent: Agent) -> None:
    """Each key makes a signature."""
    listed = agent.ssh_add("-L")
    assert len(listed.lines) == 5, (listed, agent.log)
    for number, line in enumerate(listed.lines):
        public = agent.home.write(f"listed-{number}.pub", line + "\n")
        done = agent.ssh_add("-T", public)
        assert done.status == 0, (line, done, agent.log)


def none_left(agent: Agent, sought: dict[str, list[bytes]]) -> None:
    """Waits until none is found: a process that was killed takes a moment to end."""
    eventually(lambda: not memory.found(everywhere(agent), sought), "the end of all traces", within=60)


def everywhere(agent: Agent) -> list[int]:
    return agent.processes


def test_a_locked_agent_knows_nothing_and_goes_on_when_unlocked(
    agent_with_secrets: Agent, known: Secrets, askpass: Askpass
) -> None:
    agent, all_secrets = agent_with_secrets, known.pins | known.keys
    # That they are found where they must be shows that they would be found elsewhere.
    assert memory.found(everywhere(agent), all_secrets) == set(all_secrets)
    assert memory.found([agent.pid], all_secrets) == set(known.pins)

    passphrase = "Enter lock password: "
    assert agent.ssh_add("-x", typing=[(passphrase, "sesame"), ("Again: ", "sesame")]).status == 0
    none_left(agent, all_secrets)

    assert agent.ssh_add("-X", typing=[(passphrase, "sesame")]).status == 0
    questions = len(askpass.questions)
    use_all(agent)
    assert len(askpass.questions) == questions
    assert memory.found(everywhere(agent), all_secrets) == set(all_secrets)


def test_forgotten_pins_and_removed_keys_are_gone(agent_with_secrets: Agent, known: Secrets) -> None:
    agent = agent_with_secrets
    assert agent.run(REPLUG, "forget").out == "2 PINs forgotten.\n"
    none_left(agent, known.pins)
    assert memory.found(everywhere(agent), known.keys) == set(known.keys)

    for path in known.files[:-1]:
        assert agent.ssh_add("-d", path).status == 0
    none_left(agent, known.keys)
    assert agent.ssh_add("-T", f"{known.files[-1]}.pub").status == 0
    left = {name for name in known.keys if name.startswith("rsa")}
    assert memory.found(everywhere(agent), known.keys) == left
    assert memory.found([agent.pid], known.keys) == set()
    assert agent.ssh_add("-D").status == 0
    none_left(agent, known.keys)


@pytest.mark.parametrize("refused", ["wrong PIN", "not allowed", "locked"])
def test_what_is_refused_leaves_no_pin(
    agent_with_secrets: Agent, known: Secrets, refused: str, home: Home
) -> None:
    agent = agent_with_secrets
    pin = secrets.token_hex(16)
    cases: dict[str, Callable[[], object]] = {
        "wrong PIN": lambda: agent.ssh_add(
            "-s", "pkcs11:token=given?module-path=" + str(MODULE),
            typing=[("Enter passphrase for PKCS#11: ", pin)],
        ),
        "not allowed": lambda: agent.add_provider("/bin/sh", pin),
        "locked": lambda: [
            agent.ssh_add("-x", typing=[("Enter lock password: ", "x"), ("Again: ", "x")]),
            agent.add_provider(MODULE, pin),
        ],
    }  # fmt: skip
    cases[refused]()
    none_left(agent, {"PIN": memory.pieces_of_bytes(pin.encode())})


def test_the_key_of_certificates_is_in_the_process_for_keys_alone(
    start_agent: StartAgent, home: Home, askpass: Askpass
) -> None:
    """Nobody but that process has ever seen it, so it is looked for there by its public half."""
    authority = Token(home, "ssh_ca").add("p256")
    server = Server(home, f"TrustedUserCAKeys {authority}")
    ca, host = (
        home.run("ssh-keygen", "-lf", public).out.split()[1] for public in (authority, server.host_key)
    )
    rule = f'ca = "{ca}"\nhosts = ["{host}"]\nprincipals = ["{USER}"]'
    home.configure(f'modules = ["{MODULE}"]\n[[certificate]]\n{rule}')
    askpass.answers(PIN)
    agent = start_agent(env=askpass.env)
    assert server.login(agent).out == f"in {USER}\n", (server.log, agent.log)
    (line,) = [line for line in agent.ssh_add("-L").out.splitlines() if "-cert-" in line]
    public = Certificate.decode(b64decode(line.split()[1])).key.encode()[-32:]

    (seed,) = memory.ed25519_seeds(everywhere(agent), public)
    sought = {"seed": memory.pieces_of_bytes(seed)}
    assert memory.found(everywhere(agent), sought) == {"seed"}
    assert memory.found([agent.pid], sought) == set()

    passphrase = "Enter lock password: "
    assert agent.ssh_add("-x", typing=[(passphrase, "sesame"), ("Again: ", "sesame")]).status == 0
    none_left(agent, sought)
    assert agent.ssh_add("-X", typing=[(passphrase, "sesame")]).status == 0
    assert server.login(agent).out == f"in {USER}\n", (server.log, agent.log)
    assert agent.log.count("certificate issued") == 1
    assert memory.found(everywhere(agent), sought) == {"seed"}

    assert agent.ssh_add("-D").status == 0
    none_left(agent, sought)
