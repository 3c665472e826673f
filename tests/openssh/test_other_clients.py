"""Clients that are not OpenSSH's, each with its own code for agents: they list, sign and log in.

`make clients` tries more of them, and each beside OpenSSH's agent.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import paramiko
import pytest
from clients.all_clients import CLIENTS
from clients.seen import visit
from clients.user import FIDO, FILE, TOKEN, Key, User, Visit
from rigs.home import Home
from rigs.relay import Relay

from replug.protocol.keys import parse_any_public_key
from replug.protocol.signatures import verify_any
from replug.protocol.wire import Reader


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    home = Home()
    yield User(home)
    home.remove()


@pytest.fixture(scope="module")
def agent(request: pytest.FixtureRequest, user: User) -> Iterator[Relay]:
    """With keys of files, of a token and of an authenticator."""
    with user.agent(request.config.getoption("--agent"), FILE, TOKEN, FIDO) as agent:
        yield agent


def listed(user: User, agent: Relay) -> list[bytes]:
    lines = user.home.run("ssh-add", "-L", env={"SSH_AUTH_SOCK": str(agent.path)}).out.splitlines()
    return [b64decode(line.split()[1]) for line in lines]


def test_paramiko_lists_and_signs(user: User, agent: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.path))
    client = paramiko.Agent()
    try:
        keys = client.get_keys()

        assert [key.asbytes() for key in keys] == listed(user, agent)
        for key in keys:
            is_rsa = key.get_name() == "ssh-rsa"
            for algorithm in ("rsa-sha2-512", "rsa-sha2-256") if is_rsa else (None,):
                signature = key.sign_ssh_data(b"data", algorithm)
                assert Reader(signature).text() == (algorithm or key.get_name())
                verify_any(parse_any_public_key(key.asbytes()), signature, b"data")
    finally:
        client.close()


def test_asyncssh_lists_and_signs(user: User, agent: Relay) -> None:
    async def list_and_sign() -> list[bytes]:
        async with asyncssh.connect_agent(str(agent.path)) as client:
            keys = await client.get_keys()
            for key in keys:
                signature = await key.sign_async(b"data")
                verify_any(parse_any_public_key(key.public_data), signature, b"data")
            return [key.public_data for key in keys]

    assert asyncio.run(list_and_sign()) == listed(user, agent)


@pytest.mark.parametrize("name", ["asyncssh", "curl", "libssh", "paramiko"])
def test_logs_in(name: str, user: User, agent: Relay, tmp_path: Path) -> None:
    client = CLIENTS[name]
    client.prepare(tmp_path)
    with user.server.listening() as port:
        for key in (FILE, "ed25519"), (FILE, "rsa"), (TOKEN, "p256"), (TOKEN, "rsa"), (FIDO, "ed25519-sk"):
            seen, complaint = visit(client, Visit(user, agent, port, Key(*key)))
            assert seen.brought == (key[0] not in client.cannot), (key, complaint, seen)
