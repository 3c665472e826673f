"""What takes pcscd's place, or a card with a loose contact: it reports changes as fast as they are read."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest
from attacks.waits import Waits
from rigs.agent import LIST_REQUEST, StartAgent
from rigs.home import Home
from rigs.pcscd import OPENSC, READER, Pcscd
from rigs.piv_card import Card
from rigs.terminal import eventually

PIN = "123456"
VERSION, FOLLOW = 0x11, 0x13  # commands of pcscd's protocol (winscard_msg.h)
IN, OUT = 0x4, 0x2  # whether a card is there (eventhandler.h)
NO_READERS = bytes(15 * 184)
ROUNDS_KEPT = 1000
"""More than fit into what the kernel and the agent keep of a stream that is not read."""
WAITED_FOR = 3.0
"""Seconds; a card that was inserted is waited for two."""


@pytest.fixture
def pcscd(home: Home) -> Iterator[Pcscd]:
    with closing(Pcscd(home)) as pcscd:
        pcscd.slot.insert(Card())
        pcscd.await_present()
        yield pcscd


class Impostor:
    """Listens where pcscd did. It answers only who follows the readers, and reads nothing from then on."""

    def __init__(self, path: Path) -> None:
        self.followed = False
        self.rounds = 0
        """How many changes were reported."""
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        path.chmod(0o666)
        self._listening.listen()
        self._clients: list[socket.socket] = []

    def serve(self) -> None:
        """Until `close`."""
        with ThreadPoolExecutor(64) as clients, suppress(OSError):
            while True:
                client = self._listening.accept()[0]
                self._clients.append(client)
                clients.submit(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            while len(head := client.recv(8)) == 8:
                size, command = struct.unpack("=II", head)
                if command == FOLLOW:
                    self._report(client)
                client.sendall(client.recv(size))
                if command != VERSION:
                    return

    def _report(self, client: socket.socket) -> None:
        self.followed = True
        for changes in count():
            state = (OUT, IN)[changes % 2]
            client.sendall(struct.pack("=128sII48x", f"{READER} 00 00".encode(), changes, state) + NO_READERS)
            client.sendall(bytes(8))
            self.rounds += 1

    def close(self) -> None:
        for one in (self._listening, *self._clients):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextmanager
def impostor(path: Path) -> Iterator[Impostor]:
    path.unlink(missing_ok=True)
    with ThreadPoolExecutor(1) as own, closing(Impostor(path)) as one:
        own.submit(one.serve)
        yield one


def test_changes_without_end(pcscd: Pcscd, start_agent: StartAgent) -> None:
    """Listings wait for a card that comes and goes once, and not for ever; nothing piles up in the agent."""
    agent = start_agent("-P", "*")
    assert agent.add_provider(OPENSC, PIN).status == 0, agent.log
    pcscd.stop()
    with impostor(pcscd.socket) as one:
        eventually(lambda: one.followed, "the agent follows the readers", 30)
        with agent.connect() as connection:
            waits, times = Waits(agent), []
            for _ in range(300):
                waits.begin()
                assert connection.ask(LIST_REQUEST)[:1] == b"\x0c"
                times.append(waits.end())
        print(f"slowest listings: {sorted(times)[-3:]} s, {one.rounds} changes reported")
        assert max(times) < WAITED_FOR
        assert sum(times) < 2 * WAITED_FOR
        assert one.rounds < ROUNDS_KEPT
