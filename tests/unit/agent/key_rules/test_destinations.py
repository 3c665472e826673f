"""Which keys hosts have accepted: what is learned, kept in a file, and forgotten."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from doubles.stand_ins import Key, run

from replug.agent.clients.client import Client
from replug.agent.clients.peer import Peer
from replug.agent.key_rules.described import forget_hosts, hosts_as_json
from replug.agent.key_rules.destinations import Destinations
from replug.protocol.keys import fingerprint
from replug.protocol.known_hosts import KnownAs
from replug.protocol.purpose import Host, Login, Purpose, Signed
from replug.protocol.sessions import Binding, Sessions
from replug.protocol.signed_data import SshSignature

KEYS = [f"SHA256:{number:043}" for number in range(20)]
HOST = Host(Key().blob, KnownAs(("server",)))
MANY = 12


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, not there yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/replug/destinations.json"


def client_at(host: Host) -> Client:
    """One that logs in there."""
    client = Client(Peer(os.getpid(), os.getuid()))
    client.sessions = Sessions((Binding(host.key, b"session", False),), bind_attempted=True)
    client.hosts = (host,)
    return client


def login(known: Destinations, key: bytes, host: Host = HOST, *, listed: int = MANY) -> None:
    """A list, and a signature with one of its keys."""
    if listed:
        known.unused.listed(host, listed, "ssh (pid 7)")
    known.used(client_at(host), Purpose(Login(host, "me"), (), False), key)


async def loaded() -> Destinations:
    known = Destinations(lambda: None)
    await known.load()
    return known


def read(file: Path) -> list[dict[str, Any]]:
    """The hosts in the file, which is the user's alone; none while there is no file."""
    if not file.exists():
        return []
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    said: list[dict[str, Any]] = json.loads(file.read_text())["hosts"]
    return said


async def written(file: Path, hosts: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(20):
        while len(said := read(file)) != hosts:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.01)
    return said


def test_it_is_known_to_the_next_agent(file: Path) -> None:
    one, other = Key().blob, Key().blob

    async def main() -> None:
        known = await loaded()
        login(known, one)
        login(known, other)
        login(known, one)
        [said] = await written(file, 1)
        assert said["accepted"] == [fingerprint(one), fingerprint(other)]
        again = await loaded()
        assert again.accepted(HOST.fingerprint) == (fingerprint(one), fingerprint(other))
        assert again.accepted(fingerprint(Key().blob)) == ()
        assert (await forget_hosts(again)) == {"version": 1, "forgotten": 1, "failed": ""}
        assert again.accepted(HOST.fingerprint) == ()

    run(main())
    assert not file.exists()


@pytest.mark.parametrize(
    ("host", "listed", "signed"),
    [
        (Host(HOST.key, KnownAs()), MANY, None),
        (Host(HOST.key, None), MANY, None),
        (HOST, 0, None),
        (HOST, MANY, SshSignature(b"file", "sha512", bytes(64))),
    ],
    ids=["not in known_hosts", "known_hosts not read", "few keys", "no login"],
)
def test_nothing_is_learned(host: Host, listed: int, signed: Signed | None) -> None:
    known = Destinations(lambda: pytest.fail("nothing has changed"))
    if signed is None:
        login(known, Key().blob, host, listed=listed)
    else:
        known.unused.listed(host, listed, "")
        known.used(client_at(host), Purpose(signed, (), False), Key().blob)
    assert list(known) == []


def test_forwarded_clients_teach_nothing() -> None:
    known = Destinations(lambda: pytest.fail("nothing has changed"))
    known.unused.listed(HOST, MANY, "")
    client = client_at(HOST)
    client.sessions = Sessions((Binding(HOST.key, b"session", True),), bind_attempted=True)
    known.used(client, Purpose(Login(HOST, "me"), (HOST,), False), Key().blob)
    assert list(known) == []


def test_there_is_room_for_so_many_and_the_oldest_leave(file: Path) -> None:
    hosts = [Host(f"host {number}".encode(), KnownAs(("server",))) for number in range(502)]

    async def main() -> None:
        known = await loaded()
        for host in hosts[:500]:
            login(known, b"key")
            login(known, b"key", host)
        login(known, b"key", hosts[0])
        login(known, b"key", hosts[500])
        said = hosts_as_json(known)
        assert len(said) == 500
        assert [one["host_key"] for one in said[:2]] == [hosts[500].fingerprint, hosts[0].fingerprint]
        assert known.accepted(hosts[1].fingerprint) == ()
        for number in range(20):
            login(known, str(number).encode())
        accepted = known.accepted(HOST.fingerprint)
        assert (len(accepted), accepted[-1]) == (16, fingerprint(b"19"))
        await written(file, 500)

    run(main())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 2, "hosts": []}',
        '{"version": 1, "hosts": [{"host_key": "x", "accepted": [], "used": 0}]}',
        '{"version": 1, "hosts": [{"host_key": 1, "accepted": "x", "used": 0}]}',
        f'{{"version": 1, "hosts": [{{"host_key": "{KEYS[0]}", "accepted": [], "used": NaN}}]}}',
        f'{{"version": 1, "hosts": [{{"host_key": "{KEYS[0]}", "accepted": [], "used": -1e300}}]}}',
        "[" * 100_000,
    ],
)
def test_a_broken_file_is_said_and_replaced(file: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    file.parent.mkdir(parents=True, mode=0o700)
    file.write_text(text)

    async def main() -> None:
        known = await loaded()
        [line] = [one for one in caplog.records if one.levelno == logging.WARNING]
        assert line.message == "which keys hosts accept is unknown, and learned from now on"
        assert vars(line)["path"] == str(file)
        login(known, Key().blob)
        async with asyncio.timeout(20):
            while not is_whole(file):  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0.01)

    run(main())


def is_whole(file: Path) -> bool:
    """Whether there is a host in it, and nothing wrong with it."""
    try:
        return len(read(file)) == 1
    except (AssertionError, ValueError, LookupError, TypeError, RecursionError):
        return False


def test_a_file_that_others_can_write_is_not_believed(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.parent.mkdir(parents=True, mode=0o700)
    host = {"host_key": HOST.fingerprint, "accepted": KEYS[:1], "used": time.time()}
    file.write_text(json.dumps({"version": 1, "hosts": [host]}))
    file.chmod(0o666)
    assert list(run(loaded())) == []
    assert "can be changed by other users" in caplog.text or "others" in str(vars(caplog.records[-1])["why"])
    file.chmod(0o600)
    assert run(loaded()).accepted(HOST.fingerprint) == (KEYS[0],)


def test_the_second_list_without_a_signature_is_worth_a_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    now = 1000.0
    monkeypatch.setattr("replug.agent.key_rules.unused_lists.time.monotonic", lambda: now)
    known = Destinations(lambda: None)

    def lines() -> int:
        return sum(one.message == "many keys were listed, and none was used" for one in caplog.records)

    known.unused.listed(HOST, MANY, "ssh (pid 7)")
    login(known, b"key", listed=0)
    known.unused.listed(HOST, MANY, "ssh (pid 7)")
    assert lines() == 0
    for _ in range(3):
        known.unused.listed(HOST, MANY, "ssh (pid 7)")
        assert lines() == 1
    now += 601
    known.unused.listed(HOST, MANY, "ssh (pid 7)")
    assert lines() == 1
    known.unused.listed(HOST, MANY, "ssh (pid 7)")
    assert lines() == 2
