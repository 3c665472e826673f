"""Signing files and commits with keys of a token."""

from __future__ import annotations

import pytest
from rigs.agent import Agent
from rigs.home import Home
from rigs.softhsm import KINDS, Token


def allow(home: Home, token: Token, kind: str) -> str:
    """Writes an allowed-signers file in which me@example.com has the key of this kind."""
    line = "me@example.com " + token.public(kind).read_text()
    return str(home.write("allowed_signers", line))


@pytest.mark.parametrize("kind", KINDS)
def test_sign_and_verify_a_file(kind: str, working_agent: Agent, token: Token, home: Home) -> None:
    document = home.write("document", "to be signed\n")

    signed = working_agent.run("ssh-keygen", "-Y", "sign", "-f", token.public(kind), "-n", "file", document)

    assert signed.status == 0, (signed, working_agent.log)
    verify = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-f",
        allow(home, token, kind),
        "-I",
        "me@example.com",
        "-n",
        "file",
    ]
    signature = f"{document}.sig"
    good = home.run(*verify, "-s", signature, text="to be signed\n")
    assert good.status == 0, good
    assert good.out.startswith('Good "file" signature for me@example.com')
    bad = home.run(*verify, "-s", signature, text="something else\n")
    assert bad.status == 255


def test_sign_a_commit(working_agent: Agent, token: Token, home: Home) -> None:
    def git(*arguments: str) -> str:
        done = working_agent.run("git", "-C", str(home.folder / "work"), *arguments)
        assert done.status == 0, (done, working_agent.log)
        return done.out + done.err

    home.write(
        ".gitconfig",
        f"""
        [user]
            name = Me
            email = me@example.com
            signingkey = {token.public("p256")}
        [gpg]
            format = ssh
        [gpg "ssh"]
            allowedSignersFile = {allow(home, token, "p256")}
        """,
    )
    (home.folder / "work").mkdir()
    git("init", "-q")

    git("commit", "-q", "-S", "--allow-empty", "-m", "signed")
    git("commit", "-q", "--allow-empty", "-m", "not signed")

    assert 'Good "git" signature for me@example.com with ECDSA key' in git("verify-commit", "HEAD~1")
    assert git("log", "--format=%s %G?").splitlines() == ["not signed N", "signed G"]
