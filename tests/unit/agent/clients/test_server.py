"""Accepting clients: whose they are, how many there may be, and the end of it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from doubles.link import Script
from doubles.stand_ins import run, settle, waiting

from replug.agent.clients import server as server_module
from replug.agent.clients.peer import Peer
from replug.agent.clients.server import Entrance, Server
from replug.protocol.framing import frame
from replug.token.bytes_only import BytesOnlyListener, Disposal
from replug.token.errors import ExplainedError
from replug.token.requester import Requester

REQUEST = frame(b"hello")


class Place:
    """A listening socket; make the server of it in a running loop."""

    def __init__(self, folder: Path, kind: type[BytesOnlyListener] = BytesOnlyListener) -> None:
        self.path = str(folder / "agent")
        self.listener = kind.of(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), Disposal().take)
        self.listener.bind(self.path)
        self.listener.listen(128)
        self.peers: list[Peer] = []
        self.why_no_guests: ExplainedError | None = ExplainedError("not here")
        self.closed: list[tuple[int, str]] = []

    def serve(self) -> Server:
        server = Server(waiting(), self._not_served)
        server.open(Entrance(self.listener, self._converse, lambda: self.why_no_guests))
        return server

    def _not_served(self, peer: Peer, error: ExplainedError) -> None:
        self.closed.append((peer.uid, error.reason))

    def _converse(self, peer: Peer) -> Script:
        self.peers.append(peer)
        return Script(bytes)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.setblocking(False)
        client.connect(self.path)
        return client


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def ask(client: socket.socket) -> bytes:
    """The echo of a request; nothing if the agent closed instead."""
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(client, REQUEST)
        return await loop.sock_recv(client, 100)
    except (BrokenPipeError, ConnectionResetError):
        return b""


def test_clients_are_served_side_by_side(place: Place) -> None:
    async def main() -> None:
        server = place.serve()
        clients = [place.connect() for _ in range(100)]
        assert await asyncio.gather(*map(ask, clients)) == [REQUEST] * 100
        assert place.peers == [Peer(os.getpid(), os.getuid())] * 100
        server.close()
        for client in clients:
            client.close()

    run(main())


def test_another_users_program_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        server = place.serve()
        stranger = Peer(os.getpid(), 1 + max(os.geteuid(), 1))
        with monkeypatch.context() as patch:
            patch.setattr(Peer, "of", lambda _client, _view: stranger)
            with place.connect() as client:
                assert await ask(client) == b""
        assert place.peers == []
        assert place.closed == [(stranger.uid, "not here")]
        with place.connect() as client:
            assert await ask(client) == REQUEST
        server.close()

    run(main())


def test_a_guest_has_64_connections_and_takes_none_from_others(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        place.why_no_guests = None
        server = place.serve()
        alice, bob = (number + max(os.geteuid(), 1) for number in (1, 2))
        uids = [alice] * 70 + [bob, os.geteuid()]
        monkeypatch.setattr(Peer, "of", lambda _client, _view: Peer(os.getpid() + len(uids), uids.pop(0)))
        clients = [place.connect() for _ in range(72)]
        answers = await asyncio.gather(*map(ask, clients))
        assert answers == [REQUEST] * 64 + [b""] * 6 + [REQUEST] * 2
        assert place.closed == [(alice, f"user {alice} has 64 connections")] * 6
        # Those that it gives up can be had again.
        clients[0].close()
        await settle()
        uids[:] = [alice] * 2
        clients += [place.connect() for _ in range(2)]
        assert [await ask(client) for client in clients[-2:]] == [REQUEST, b""]
        server.close()
        for client in clients:
            client.close()

    run(main())


@pytest.mark.parametrize(("uid", "allowed"), [(0, True), (1000, True), (1001, False), (65534, False)])
def test_who_is_allowed(uid: int, allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert Peer(1, uid).is_foreign is not allowed


def test_a_peer_is_called_by_its_programs_name() -> None:
    name = Path("/proc/self/comm").read_text().strip()
    assert Peer(os.getpid(), 0).program == f"{name} (pid {os.getpid()})"


def test_a_peer_that_has_ended_still_has_a_number() -> None:
    too_large = 2**22 + 1
    assert Peer(too_large, 0).program == f"process (pid {too_large})"


@pytest.fixture
def room_for_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few descriptors that there is room for three clients."""
    monkeypatch.setattr(server_module, "_RESERVED_DESCRIPTORS", 32)
    monkeypatch.setattr(server_module.resource, "getrlimit", lambda _which: (6, 6))


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that the next clients are said to be."""
    numbers = list[int]()
    monkeypatch.setattr(Peer, "of", lambda _client, _view: Peer(numbers.pop(0), os.getuid()))
    return numbers


@pytest.mark.usefixtures("room_for_three")
def test_a_process_with_many_connections_loses_those_that_it_does_not_use(
    place: Place, processes: list[int]
) -> None:
    async def main() -> None:
        server = place.serve()
        processes.extend((10, 10, 11, 12, 10))
        clients = [place.connect() for _ in range(3)]
        for client in (clients[1], clients[0], clients[2]):
            assert await ask(client) == REQUEST
        with place.connect() as newcomer:
            assert await ask(newcomer) == REQUEST
            assert [await ask(client) for client in clients] == [REQUEST, b"", REQUEST]
        with place.connect() as another:
            assert await ask(another) == REQUEST
        server.close()
        for client in clients:
            client.close()

    run(main())


@pytest.mark.usefixtures("room_for_three")
@pytest.mark.parametrize("unused", [0.0, 60.0])
def test_a_client_gives_way_if_it_was_not_used_for_long(
    unused: float, place: Place, processes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it may be an ssh that waits for its server before it asks for the signature."""

    async def main() -> None:
        server = place.serve()
        processes.extend((10, 11, 12, 13, 14))
        clients = [place.connect() for _ in range(3)]
        for client in clients:
            assert await ask(client) == REQUEST
        if unused:
            monkeypatch.setattr(server_module, "_LONG_UNUSED", -1.0)
        more = [place.connect() for _ in range(2)]
        answers = [asyncio.create_task(ask(client)) for client in more]
        await settle()
        # Others wait until some leave.
        assert len(place.peers) == (5 if unused else 3)
        for client in clients[:2]:
            client.close()
        assert await asyncio.gather(*answers) == [REQUEST] * 2
        assert await ask(clients[2]) == REQUEST
        server.close()
        for client in (*clients, *more):
            client.close()

    run(main())


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that the next clients are said to be; of the same ten they are one program."""
    numbers = list[int]()

    def of(_client: socket.socket, _view: str) -> Peer:
        peer = Peer(numbers.pop(0), os.getuid())
        peer.requester = Requester((1, f"program {peer.pid // 10}"), peer.pid)
        return peer

    monkeypatch.setattr(Peer, "of", of)
    return numbers


@pytest.mark.usefixtures("room_for_three")
@pytest.mark.parametrize("crowd", [(10, 10, 10, 10, 10), (10, 11, 12, 13, 14)], ids=["one", "many"])
def test_a_program_does_not_keep_another_out(place: Place, programs: list[int], crowd: list[int]) -> None:
    """Neither by one process nor by many, though all its connections are in use."""

    async def main() -> None:
        server = place.serve()
        programs.extend((*crowd, 20))
        clients = [place.connect() for _ in crowd]
        for client in clients:
            client.send(REQUEST[:-1])
        await settle()
        with place.connect() as other:
            assert await ask(other) == REQUEST
        server.close()
        for client in clients:
            client.close()

    run(main())


@pytest.mark.usefixtures("room_for_three")
def test_entrances_have_one_room_and_are_shut_one_by_one(place: Place, tmp_path: Path) -> None:
    """All who come in by one that is for some of the keys are one program, whichever they are."""
    (tmp_path / "view").mkdir()
    view = Place(tmp_path / "view")

    async def main() -> None:
        server = place.serve()
        entrance = Entrance(view.listener, view._converse, lambda: None, view.path)
        server.open(entrance)
        crowd = [view.connect() for _ in range(5)]
        for one in crowd:
            one.send(REQUEST[:-1])
        await settle()
        own = place.connect()
        assert await ask(own) == REQUEST
        assert {peer.requester.program for peer in view.peers} == {(0, view.path)}
        server.shut(entrance)
        late = view.connect()
        await settle()
        # Those who waited for room, too.
        assert [await ask(one) for one in crowd] == [b""] * 5
        assert await ask(own) == REQUEST
        server.close()
        for one in (own, *crowd, late):
            one.close()

    run(main())


@pytest.mark.usefixtures("room_for_three")
@pytest.mark.parametrize("clients", [0, 1, 3])
def test_a_closed_server_accepts_nobody(place: Place, clients: int) -> None:
    async def main() -> None:
        server = place.serve()
        connected = [place.connect() for _ in range(clients)]
        assert await asyncio.gather(*map(ask, connected)) == [REQUEST] * clients
        server.close()
        late = place.connect()
        await settle()
        assert len(place.peers) == clients
        for client in connected:
            assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
        for client in (late, *connected):
            client.close()

    run(main())


def exhausted(code: int) -> type[BytesOnlyListener]:
    """A listening socket that cannot accept at first."""

    class Listener(BytesOnlyListener):
        failures = 2

        def accept(self) -> tuple[socket.socket, Any]:
            if self.failures:
                self.failures -= 1
                raise OSError(code, os.strerror(code))
            return super().accept()

    return Listener


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_when_descriptors_run_out_it_pauses(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_module, "_PAUSE", 0.01)
    place = Place(tmp_path, exhausted(code))

    async def main() -> None:
        server = place.serve()
        with place.connect() as client:
            assert await ask(client) == REQUEST
        server.close()

    run(main())
    assert [record.getMessage() for record in caplog.records] == [
        f"cannot accept connections: {os.strerror(code)}"
    ] * 2


def test_a_pause_does_not_outlive_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_PAUSE", 0.01)
    place = Place(tmp_path, exhausted(errno.EMFILE))

    async def main() -> None:
        server = place.serve()
        with place.connect():
            await settle()
            server.close()
            await asyncio.sleep(0.05)
            assert place.peers == []

    run(main())


def test_a_client_that_is_gone_before_it_is_accepted(place: Place) -> None:
    async def main() -> None:
        server = place.serve()
        place.connect().close()
        with place.connect() as client:
            assert await ask(client) == REQUEST
        server.close()

    run(main())
