"""Certificates: an authority whose key is on the token, and those for keys on a token."""

from __future__ import annotations

from pathlib import Path

import pytest
from rigs.agent import Agent, frame
from rigs.home import Home
from rigs.key_files import blob_of, make_key, public_of
from rigs.key_files import certify as certify_with_file
from rigs.softhsm import MODULE, PIN, Token
from rigs.sshd import USER, Server, only
from rigs.terminal import eventually

from replug.protocol.constraints import AssociatedCerts, Confirm, Constraint, Lifetime
from replug.protocol.messages import AddSmartcardKey

SUCCESS = b"\x06"


def certify(agent: Agent, ca: Path, public: Path, principal: str, validity: str = "+10m") -> Path:
    """Has the CA key in the agent sign a certificate for `public`."""
    done = agent.run(
        "ssh-keygen", "-s", ca, "-U", "-I", "id", "-n", principal, "-V", validity, public
    )  # fmt: skip
    assert done.status == 0, (done, agent.log)
    return public.with_name(public.stem + "-cert.pub")


def server_trusting(home: Home, ca: Path) -> Server:
    """An sshd that knows no keys, only the CA."""
    return Server(home, f"TrustedUserCAKeys {ca}", "AuthorizedKeysFile none")


@pytest.fixture
def user_key(home: Home) -> Path:
    """A key in a file, as an administrator has it."""
    path = home.folder / "user"
    assert home.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path).status == 0
    return path


@pytest.mark.parametrize("kind", ["rsa2048", "p384", "ed25519"])
def test_a_certificate_signed_by_the_token_logs_in(
    kind: str, working_agent: Agent, token: Token, home: Home, user_key: Path
) -> None:
    ca = token.public(kind)
    server = server_trusting(home, ca)

    before = server.login(working_agent, "-i", user_key, "-o", "IdentitiesOnly=yes")
    certify(working_agent, ca, user_key.with_suffix(".pub"), USER)
    after = server.login(working_agent, "-i", user_key, "-o", "IdentitiesOnly=yes")

    assert before.status == 255
    assert (after.status, after.out) == (0, f"in {USER}\n"), (after, server.log)


def test_a_token_key_with_a_certificate_logs_in(working_agent: Agent, token: Token, home: Home) -> None:
    ca, public = token.public("p384"), token.public("p256")
    server = server_trusting(home, ca)

    certificate = certify(working_agent, ca, public, USER)
    done = server.login(
        working_agent, "-i", public, "-o", f"CertificateFile={certificate}", "-o", "IdentitiesOnly=yes"
    )

    assert (done.status, done.out) == (0, f"in {USER}\n"), (done, server.log, working_agent.log)


@pytest.mark.parametrize(("principal", "validity"), [("somebody-else", "+10m"), (USER, "20200101:20200102")])
def test_a_certificate_for_another_or_from_the_past_stays_out(
    principal: str, validity: str, working_agent: Agent, token: Token, home: Home, user_key: Path
) -> None:
    ca = token.public("p384")
    server = server_trusting(home, ca)

    certify(working_agent, ca, user_key.with_suffix(".pub"), principal, validity)

    assert server.login(working_agent, "-i", user_key, "-o", "IdentitiesOnly=yes").status == 255


def add_with_certificates(
    agent: Agent,
    certificates: list[Path],
    *,
    certificates_only: bool = False,
    others: tuple[Constraint, ...] = (),
) -> bool:
    """`ssh-add [-C] -s MODULE cert.pub ...`, as OpenSSH sends it from 9.6 on."""
    blobs = tuple(blob_of(certificate) for certificate in certificates)
    request = AddSmartcardKey(
        str(MODULE).encode(), PIN.encode(), (*others, AssociatedCerts(certificates_only, blobs))
    )
    with agent.connect() as connection:
        return connection.ask(frame(request.encode())) == SUCCESS


@pytest.fixture
def ca(home: Home) -> Path:
    """A CA in a file."""
    return make_key(home, "ca")


@pytest.mark.parametrize("only_certificates", [False, True])
def test_certificates_are_added_with_a_tokens_keys(
    only_certificates: bool, agent: Agent, token: Token, home: Home, ca: Path
) -> None:
    """They log in without their files; one that is for no key of the token is left out."""
    publics = [token.public(kind) for kind in ("p256", "rsa2048", "ed25519")]
    certificates = [certify_with_file(home, ca, public, "-n", USER) for public in publics]
    stranger = certify_with_file(home, ca, public_of(make_key(home, "stranger")), "-n", USER)
    server = server_trusting(home, public_of(ca))

    assert add_with_certificates(agent, [*certificates, stranger], certificates_only=only_certificates), (
        agent.log
    )

    listed = {line.split()[1]: line for line in agent.ssh_add("-L").lines}
    expected = {certificate.read_text().split()[1] for certificate in certificates}
    plain = {public.read_text().split()[1] for public in home.folder.glob("*.pub")} - expected
    assert listed.keys() >= expected
    assert len(listed) == (3 if only_certificates else 9)
    assert only_certificates == (not listed.keys() & plain)
    for certificate, kind in zip(certificates, ("p256", "rsa2048", "ed25519"), strict=True):
        assert listed[certificate.read_text().split()[1]].endswith(f" {kind}")
        alone = home.write(f"alone-{kind}.pub", certificate.read_text())
        certificate.unlink()
        done = server.login(agent, *only(alone))
        assert (done.status, done.out) == (0, f"in {USER}\n"), (done, server.log, agent.log)


def test_certificates_for_no_key_at_all(agent: Agent, token: Token, home: Home, ca: Path) -> None:
    """With `ssh-add -C` nothing would be left to list; without it the keys are."""
    stranger = certify_with_file(home, ca, public_of(make_key(home, "stranger")), "-n", USER)

    assert not add_with_certificates(agent, [stranger], certificates_only=True)
    assert agent.ssh_add("-l").status == 1
    assert add_with_certificates(agent, [stranger]), agent.log
    assert len(agent.ssh_add("-l").lines) == 6


def test_certificates_have_the_constraints_of_their_keys(
    agent: Agent, token: Token, home: Home, ca: Path
) -> None:
    """A lifetime and a confirmation; and they go one by one, or with their provider."""
    certificate = certify_with_file(home, ca, token.public("p256"), "-n", USER)

    assert add_with_certificates(agent, [certificate], others=(Confirm(),)), agent.log
    assert agent.ssh_add("-T", certificate).status == 1
    assert "needs a confirmation" in agent.log
    assert add_with_certificates(agent, [certificate], others=(Lifetime(3600),)), agent.log
    assert agent.ssh_add("-T", certificate).status == 0, agent.log
    assert agent.ssh_add("-d", certificate).status == 0
    assert agent.ssh_add("-T", certificate).status == 1
    assert agent.ssh_add("-T", token.public("p256")).status == 0, agent.log
    assert add_with_certificates(agent, [certificate], others=(Lifetime(1),)), agent.log
    eventually(lambda: agent.ssh_add("-l").status == 1, "the end of keys and certificate")
    assert add_with_certificates(agent, [certificate]), agent.log
    assert agent.ssh_add("-T", certificate).status == 0, agent.log
    assert agent.ssh_add("-e", MODULE).status == 0
    assert agent.ssh_add("-l").status == 1
