"""Clients that are not OpenSSH's, each with its own code for agents: they list, sign and log in."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import asyncssh
import paramiko
import pytest
from rigs.agent import Agent
from rigs.home import Home
from rigs.key_files import blob_of, make_key, public_of
from rigs.sshd import USER, Server

from replug.protocol.keys import parse_any_public_key
from replug.protocol.signatures import Signature, verify_any

SOURCE = Path(__file__).parent.parent / "modules" / "libssh_login.c"
PLACES = ["file", "token"]
KINDS = ["ed25519", "p256", "p521", "rsa"]


@pytest.fixture(scope="session")
def libssh_login(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("programs") / "libssh-login"
    subprocess.run(["cc", "-o", program, SOURCE, "-lssh"], check=True)
    return program


@pytest.fixture
def stocked_agent(working_agent: Agent, home: Home) -> Agent:
    """The agent with the six keys of a token and then four from files."""
    keys = [make_key(home, f"file-{kind}", kind) for kind in KINDS]
    assert working_agent.ssh_add(*keys).status == 0, working_agent.log
    return working_agent


@pytest.fixture
def patient_server(home: Home) -> Server:
    """A server that hears all ten keys: these clients try them in the agent's order."""
    return Server(home, "MaxAuthTries 20")


def public(home: Home, place: str, kind: str) -> Path:
    """The .pub file of one of its keys."""
    if place == "file":
        return public_of(home.folder / f"file-{kind}")
    return home.folder / f"{'rsa2048' if kind == 'rsa' else kind}.pub"


def blobs(agent: Agent) -> list[str]:
    return [line.split()[1] for line in agent.ssh_add("-L").out.splitlines()]


def test_paramiko_lists_and_signs(stocked_agent: Agent, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(stocked_agent.socket))
    agent = paramiko.Agent()
    try:
        keys = agent.get_keys()

        assert [key.get_base64().replace("\n", "") for key in keys] == blobs(stocked_agent)
        for key in keys:
            is_rsa = key.get_name() == "ssh-rsa"
            for algorithm in ("rsa-sha2-512", "rsa-sha2-256") if is_rsa else (None,):
                signature = key.sign_ssh_data(b"data", algorithm)
                assert Signature.decode(signature).algorithm == (algorithm or key.get_name())
                verify_any(parse_any_public_key(key.asbytes()), signature, b"data")
    finally:
        agent.close()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["ed25519", "p256", "rsa"])
def test_paramiko_logs_in(
    kind: str, place: str, stocked_agent: Agent, home: Home, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(stocked_agent.socket))
    chosen = public(home, place, kind)
    server.authorize(chosen)
    agent = paramiko.Agent()
    try:
        [key] = [key for key in agent.get_keys() if key.asbytes() == blob_of(chosen)]
        with server.listening() as port, paramiko.SSHClient() as client:
            client.set_missing_host_key_policy(paramiko.MissingHostKeyPolicy())
            client.connect("127.0.0.1", port, USER, pkey=key, allow_agent=False, look_for_keys=False)
            _, out, _ = client.exec_command("id -un")
            said = out.read()
    finally:
        agent.close()

    assert said == f"{USER}\n".encode(), server.log


def test_asyncssh_lists_signs_and_logs_in(stocked_agent: Agent, home: Home, patient_server: Server) -> None:
    async def list_and_sign() -> list[str]:
        async with asyncssh.connect_agent(str(stocked_agent.socket)) as agent:
            keys = await agent.get_keys()
            for key in keys:
                signature = await key.sign_async(b"data")
                verify_any(parse_any_public_key(key.public_data), signature, b"data")
            return [key.public_data.hex() for key in keys]

    async def log_in(port: int) -> str:
        async with asyncssh.connect_agent(str(stocked_agent.socket)) as agent:
            keys = await agent.get_keys()
            async with asyncssh.connect(
                "127.0.0.1", port, username=USER, client_keys=keys, known_hosts=None, config=[]
            ) as client:
                return str((await client.run("id -un", check=True)).stdout)

    listed = asyncio.run(list_and_sign())

    assert listed == [blob_of(line).hex() for line in list_as_files(stocked_agent, home)]
    patient_server.authorize(*(public(home, place, kind) for place in PLACES for kind in KINDS))
    with patient_server.listening() as port:
        assert asyncio.run(log_in(port)) == f"{USER}\n", patient_server.log


def list_as_files(agent: Agent, home: Home) -> list[Path]:
    lines = agent.ssh_add("-L").out.splitlines()
    return [home.write(f"listed-{number}.pub", line) for number, line in enumerate(lines)]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_libssh_logs_in(
    kind: str, place: str, stocked_agent: Agent, home: Home, patient_server: Server, libssh_login: Path
) -> None:
    patient_server.authorize(public(home, place, kind))
    with patient_server.listening() as port:
        host_key = patient_server.host_key.read_text()
        known_hosts = home.write("hosts", f"[127.0.0.1]:{port} {host_key}")
        done = stocked_agent.run(libssh_login, str(port), USER, known_hosts)

    assert (done.status, done.out) == (0, f"{USER}\n"), (done, patient_server.log, stocked_agent.log)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_curl_fetches_a_file(
    kind: str, place: str, stocked_agent: Agent, home: Home, patient_server: Server
) -> None:
    """By libssh2, as Debian builds it, or libssh, as Ubuntu does."""
    patient_server.authorize(public(home, place, kind))
    fetched = home.write("fetched", "content\n")
    with patient_server.listening() as port:
        done = stocked_agent.run(
            "curl", "-sS", "--insecure", "-u", f"{USER}:", f"sftp://127.0.0.1:{port}{fetched}"
        )

    assert (done.status, done.out) == (0, "content\n"), (done, patient_server.log, stocked_agent.log)
