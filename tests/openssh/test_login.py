"""Logging in to a real sshd with the keys of a token."""

from __future__ import annotations

import re

import pytest
from rigs.agent import PIN_PROMPT, Agent
from rigs.home import Home
from rigs.softhsm import KINDS, Token
from rigs.sshd import USER, Server, only


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_key_logs_in(kind: str, working_agent: Agent, token: Token, server: Server) -> None:
    public = token.public(kind)
    server.authorize(public)

    done = server.login(working_agent, *only(public))

    assert (done.status, done.out) == (0, f"in {USER}\n"), (done, server.log, working_agent.log)


def test_a_key_that_is_not_authorized_stays_out(working_agent: Agent, token: Token, server: Server) -> None:
    server.authorize(token.public("p256"))

    done = server.login(working_agent, *only(token.public("p384")))

    assert (done.status, done.out) == (255, "")
    assert "Permission denied (publickey)" in done.err


@pytest.mark.parametrize("algorithm", ["ssh-rsa", "rsa-sha2-256", "rsa-sha2-512"])
def test_rsa_signs_with_the_hash_that_was_asked_for(
    algorithm: str, working_agent: Agent, token: Token, server: Server
) -> None:
    public = token.public("rsa2048")
    server.authorize(public)

    done = server.login(working_agent, *only(public), "-vvv", "-o", f"PubkeyAcceptedAlgorithms={algorithm}")

    assert (done.status, done.out) == (0, f"in {USER}\n"), (done, server.log, working_agent.log)
    assert f"signing using {algorithm} SHA256:" in done.err


def test_a_key_the_token_made_itself_logs_in(agent: Agent, token: Token, server: Server, home: Home) -> None:
    """SoftHSM writes such an Ed25519 key's parameters and point otherwise than an imported one's."""
    token.generate("EC:edwards25519", "made-on-token")
    assert agent.add_provider(token.module, token.pin).status == 0, agent.log
    [line] = [line for line in agent.ssh_add("-L").lines if line.endswith(" made-on-token")]
    public = home.write("made-on-token.pub", line + "\n")
    server.authorize(public)

    done = server.login(agent, *only(public))

    assert (done.status, done.out) == (0, f"in {USER}\n"), (done, server.log, agent.log)


def test_a_key_that_wants_the_pin_for_every_signature_logs_in(
    agent: Agent, token: Token, server: Server, home: Home
) -> None:
    token.generate("EC:prime256v1", "always", "--always-auth")
    assert agent.add_provider(token.module, token.pin).status == 0, agent.log
    [line] = [line for line in agent.ssh_add("-L").lines if line.endswith(" always")]
    public = home.write("always.pub", line + "\n")
    server.authorize(public)

    logins = [server.login(agent, *only(public)) for _ in range(2)]

    assert [done.out for done in logins] == [f"in {USER}\n"] * 2, (logins, agent.log)


def test_scp_copies_a_file(working_agent: Agent, token: Token, server: Server, home: Home) -> None:
    server.authorize(token.public("p256"))
    original = home.write("original", b"\x00\xff" * 50_000)

    done = working_agent.run("scp", "-q", "-F", server.client_config, original, f"host:{home.folder}/copy")

    assert (done.status, done.err) == (0, "")
    assert (home.folder / "copy").read_bytes() == original.read_bytes()


def test_sftp_fetches_a_file(working_agent: Agent, token: Token, server: Server, home: Home) -> None:
    server.authorize(token.public("p256"))
    original = home.write("original", "content")

    done = working_agent.run(
        "sftp",
        "-q",
        "-b",
        "-",
        "-F",
        server.client_config,
        "host",
        text=f"get {original} {home.folder}/copy\n",
    )

    assert (done.status, done.err) == (0, "")
    assert (home.folder / "copy").read_text() == "content"


def test_the_way_a_person_does_it(
    request: pytest.FixtureRequest, home: Home, token: Token, server: Server
) -> None:
    """eval, ssh-add with the PIN typed, ssh, and the agent is gone after -k."""
    program = request.config.getoption("agent")
    server.authorize(token.public("p256"))
    script = home.write(
        "session.sh",
        f"""
        eval $({program} -s)
        ssh-add -s {token.module}
        ssh -F {server.client_config} host 'echo in $LOGNAME'
        kill -0 $SSH_AGENT_PID && test -S $SSH_AUTH_SOCK && socket=$SSH_AUTH_SOCK pid=$SSH_AGENT_PID
        eval $({program} -k)
        for wait in $(seq 100); do test -e $socket || break; sleep 0.1; done
        test ! -e $socket && echo "socket gone, ${{SSH_AUTH_SOCK-no variable}}"
        """,
    )

    done = home.run("sh", script, typing=[(PIN_PROMPT, token.pin)])

    said = [re.sub(r"\d+", "N", line) for line in done.out.splitlines()]
    assert said == ["Agent pid N", f"in {USER}", "Agent pid N killed", "socket gone, no variable"], done
    assert f"Card added: {token.module}" in done.err
