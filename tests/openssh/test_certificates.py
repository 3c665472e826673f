"""A certificate authority whose key is on the token, and logins with what it signed."""

from __future__ import annotations

from pathlib import Path

import pytest
from rigs.agent import Agent
from rigs.home import Home
from rigs.softhsm import Token
from rigs.sshd import USER, Server


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
