"""Attacks on a CA key that a `[[ca]]` names: by a host that the agent is forwarded to, a login, an SSHSIG.

Each one succeeds without the rule, with OpenSSH's agent too; that is tried first.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from doubles.session_hosts import bind_of
from doubles.stand_ins import Key
from rigs.agent import Agent, StartAgent, frame, sign_request
from rigs.home import Home
from rigs.key_files import blob_of, make_key, public_of
from rigs.sshd import Server, only

from replug.protocol.extensions import SESSION_BIND
from replug.protocol.messages import Extension
from replug.protocol.signed_data import HostKeyProof

REPLUG = Path(sys.executable).with_name("replug")
SUCCESS, FAILURE, SIGN_RESPONSE = b"\x06", b"\x05", b"\x0e"
RULE = '\n[[ca]]\nkey = "{key}"\nmax_validity = "10m"\nprincipals = ["root"]\n'


@pytest.fixture
def ca(home: Home) -> Path:
    return make_key(home, "ca")


@pytest.fixture
def ruled(home: Home, start_agent: StartAgent, ca: Path) -> Callable[[], Agent]:
    """`ruled()`: an agent with the CA key and another, and a rule for the first."""

    def start() -> Agent:
        key = home.run("ssh-keygen", "-l", "-f", public_of(ca)).out.split()[1]
        home.configure("modules = []" + RULE.format(key=key))
        return holding(start_agent(), home, ca)

    return start


@pytest.fixture
def unruled(home: Home, start_agent: StartAgent, ca: Path) -> Agent:
    """The same without the rule."""
    return holding(start_agent(), home, ca)


def holding(agent: Agent, home: Home, ca: Path) -> Agent:
    login = home.folder / "login"
    if not login.exists():
        make_key(home, "login")
    assert agent.ssh_add("-q", ca, login).status == 0, agent.log
    return agent


def test_a_host_with_the_forwarded_agent_certifies_nothing(
    unruled: Agent, ruled: Callable[[], Agent], home: Home, server: Server, ca: Path
) -> None:
    """`ssh -A host`, and there `ssh-keygen -U`: within the rule or not, it finds no such key."""
    evil = public_of(make_key(home, "evil"))
    certificate = home.folder / "evil-cert.pub"
    login = public_of(home.folder / "login")
    server.authorize(login)

    def certify(agent: Agent, validity: str) -> int:
        command = f"ssh-keygen -q -U -s {public_of(ca)} -I evil -n root -V {validity} {evil}"
        return server.login(agent, "-A", *only(login), command=command).status

    assert certify(unruled, "+520w") == 0, server.log
    certificate.unlink()

    agent = ruled()
    for validity in ("+520w", "+10m"):
        assert certify(agent, validity) != 0
        assert not certificate.exists()
    # A program that knows the key asks without listing.
    with agent.connect() as connection:
        bind = bind_of(Key(), b"session", forwarding=True)
        assert connection.ask(frame(Extension(SESSION_BIND, bind.encode()).encode())) == SUCCESS
        body = body_of(agent, ca, evil)
        assert connection.ask(sign_request(blob_of(public_of(ca)), body)) == FAILURE
    assert "a CA key signs nothing over a connection that is bound to a session or forwarded" in (
        " ".join(agent.run(REPLUG, "explain").out.split())
    )
    assert not certificate.exists()


def body_of(agent: Agent, ca: Path, public: Path) -> bytes:
    """What the agent signs for a local client: a body within the rule."""
    from replug.protocol.certificates import Certificate

    done = agent.run(
        "ssh-keygen", "-q", "-U", "-s", public_of(ca), "-I", "i", "-n", "root", "-V", "+5m", public
    )  # fmt: skip
    assert done.status == 0, (done, agent.log)
    certificate = public.with_name(f"{public.stem}-cert.pub")
    body = Certificate.decode(blob_of(certificate)).body()
    certificate.unlink()
    return body


def test_the_ca_key_logs_in_nowhere(
    unruled: Agent, ruled: Callable[[], Agent], server: Server, ca: Path
) -> None:
    """Though the server wants it, and says so (PK_OK); by its agent's or by a file's name."""
    server.authorize(public_of(ca))
    assert server.login(unruled, *only(public_of(ca))).status == 0, server.log

    agent = ruled()
    assert server.login(agent, *only(public_of(ca))).status == 255
    assert server.login(agent).status == 255
    assert "signed key=" not in agent.log


def test_a_login_over_a_connection_of_its_own_is_no_way_around(
    unruled: Agent, ruled: Callable[[], Agent], ca: Path
) -> None:
    """As plink does it: bound to nothing, with a login in its hand."""
    from replug.protocol.userauth import UserauthRequest

    blob = blob_of(public_of(ca))
    login = UserauthRequest(b"session", "root", "ssh-ed25519", blob).encode()
    proof = HostKeyProof(b"session", blob).encode()
    for data in (login, proof, b"", b"anything", bytes(64)):
        with unruled.connect() as connection:
            assert connection.ask(sign_request(blob, data))[:1] == SIGN_RESPONSE
    agent = ruled()
    for data in (login, proof, b"", b"anything", bytes(64)):
        with agent.connect() as connection:
            assert connection.ask(sign_request(blob, data)) == FAILURE
    assert len(re.findall("it signs certificates and nothing else", agent.log)) == 5


def test_the_ca_key_signs_no_file(unruled: Agent, ruled: Callable[[], Agent], home: Home, ca: Path) -> None:
    file = home.write("file", "text\n")
    signature = home.folder / "file.sig"

    def sign(agent: Agent) -> int:
        signature.unlink(missing_ok=True)
        return agent.run("ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", public_of(ca), file).status

    # The private key is beside its public half: to ask the agent, ssh-keygen must not find it.
    ca.rename(home.folder / "elsewhere")
    assert sign(unruled) == 0
    (home.folder / "elsewhere").rename(ca)
    agent = ruled()
    ca.unlink()
    assert sign(agent) != 0
    assert not signature.exists()


def test_without_a_record_there_is_no_certificate(ruled: Callable[[], Agent], home: Home, ca: Path) -> None:
    """No file of the agent may grow (setrlimit), as on a full disk."""
    agent = ruled()
    key = public_of(make_key(home, "key"))
    body_of(agent, ca, key)
    journal = home.folder / ".local/state/replug/issued.jsonl"
    before = journal.read_bytes()
    assert len(before.splitlines()) == 1
    _, hard = resource.prlimit(agent.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, (len(before) + 100, hard))

    certify = ("ssh-keygen", "-q", "-U", "-s", public_of(ca), "-I", "i", "-n", "root", "-V", "+5m", key)

    assert agent.run(*certify).status != 0
    assert not (home.folder / "key-cert.pub").exists()
    said = " ".join(agent.run(REPLUG, "explain").out.split())
    assert "the certificate cannot be recorded (issued.jsonl): No space left on device" in said
    assert journal.read_bytes() == before
    # And once there is room again:
    resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert agent.run(*certify).status == 0
    assert len(journal.read_bytes().splitlines()) == 2


def test_nothing_on_record_hides_the_rest(home: Home, start_agent: StartAgent, ca: Path) -> None:
    """Neither a certificate without an end, which a CA key signs that has no `[[ca]]`, nor an odd line."""
    key = home.run("ssh-keygen", "-l", "-f", public_of(ca)).out.split()[1]
    rule = f'\n[[certificate]]\nca = ["{key}"]\nhosts = ["nowhere"]\nprincipals = ["root"]\n'
    home.configure("modules = []" + rule)
    agent = holding(start_agent(), home, ca)
    for name, *validity in (("endless",), ("short", "-V", "+5m")):
        certified = public_of(make_key(home, name))
        certify = ("ssh-keygen", "-q", "-U", "-s", public_of(ca), "-I", name, "-n", "root", *validity)
        assert agent.run(*certify, certified).status == 0, agent.log
    journal = home.folder / ".local/state/replug/issued.jsonl"
    whole = journal.read_text()
    for field, odd in (("time", 1e300), ("time", float("nan")), ("ca_key", 5), ("valid_before", 2**64)):
        changed = json.loads(whole.splitlines()[1]) | {field: odd}
        journal.write_text(f"{json.dumps(changed)}\n{whole}")

        listed = agent.run(REPLUG, "ca", "issued")
        assert (listed.status, listed.err) == (0, "")
        first, second = listed.out.splitlines()
        assert " endless root serial 0 until the year 9999 or later by " in first
        assert " short root serial 0 until " in second
        krl = home.folder / f"{field}.krl"
        revoked = agent.run(REPLUG, "ca", "revoke", "short", "--krl", krl)
        assert (revoked.status, revoked.err) == (0, ""), revoked
        asked = agent.run("ssh-keygen", "-Q", "-f", krl, home.folder / "short-cert.pub")
        assert "REVOKED" in asked.out
