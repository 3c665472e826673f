"""Serves clients in rounds: programs have turns, and then the processes of each."""

from __future__ import annotations

import asyncio
import logging
import select
import time
from typing import Protocol

from replug.agent.clients.waiting import Waiting
from replug.token.requester import Requester
from replug.token.turns import FairQueue

log = logging.getLogger(__name__)

READING = select.EPOLLIN | select.EPOLLRDHUP
WRITING = select.EPOLLOUT
ENDED = select.EPOLLHUP | select.EPOLLRDHUP | select.EPOLLERR
_ROUND = 0.0002  # seconds; then the loop's other work is done, of which a signature takes several turns


class Connection(Protocol):
    """A connection, as it is seen from here."""

    asker: Requester
    has_turn: bool
    """Whether it waits for its turn; only `Rounds` changes it."""
    events: int
    """What epoll reported since its last turn, each change once (EPOLLET)."""

    def fileno(self) -> int:
        """The socket's descriptor."""

    def serve(self, until: float) -> bool:
        """Do what can be done, but begin nothing after `until`; whether there is more to do now."""


class Rounds:
    """The turns of all connections of an agent whose loop waits with `waiting`."""

    def __init__(self, waiting: Waiting) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = waiting.epoll
        waiting.told = self._happened
        self._watched: dict[int, Connection] = {}
        self._waiting: FairQueue[Connection] = FairQueue()
        """Those that wait for their turn."""
        self._next: asyncio.Handle | None = None

    def close(self) -> None:
        """Serve nobody any more."""
        self._waiting.clear()
        if self._next is not None:
            self._next.cancel()

    def watch(self, connection: Connection, events: int) -> None:
        """Give it a turn whenever one of these `events` (READING, WRITING) happens."""
        fd = connection.fileno()
        if fd in self._watched:
            self._epoll.modify(fd, events | select.EPOLLET)
        else:
            self._epoll.register(fd, events | select.EPOLLET)
            self._watched[fd] = connection  # now: `forget` is for what is there

    def forget(self, connection: Connection) -> None:
        """Undo `watch`, if it was called; before the socket is closed."""
        fd = connection.fileno()
        if self._watched.pop(fd, None) is not None and not self._epoll.closed:
            self._epoll.unregister(fd)

    def enqueue(self, connection: Connection) -> None:
        """Have it served by the next `serve`."""
        if not connection.has_turn:
            connection.has_turn = True
            self._waiting.add(connection.asker, connection)

    def give_turn(self, connection: Connection) -> None:
        """Have it served in this round or the next."""
        self.enqueue(connection)
        if self._next is None:
            self._next = self._loop.call_soon(self.serve)

    def serve(self) -> None:
        """Serve those that wait, but only for a moment; the others are served next."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        now = time.monotonic()
        end = now + _ROUND
        while now < end:
            programs = len(self._waiting.waiting)
            connection = self._waiting.take()
            if connection is None:
                return
            connection.has_turn = False
            self._serve(connection, now + _ROUND / programs)
            now = time.monotonic()
        if self._waiting.waiting:
            self._next = self._loop.call_soon(self.serve)

    def _serve(self, connection: Connection, until: float) -> None:
        try:
            if connection.serve(until):
                self.enqueue(connection)
        except Exception:
            log.exception("a connection's turn failed")

    def _happened(self, to: list[tuple[int, int]]) -> None:
        if len(to) == 1 and not self._waiting.waiting:
            self._happened_to_one(*to[0])
            return
        for fd, events in to:
            connection = self._watched.get(fd)
            if connection is not None:
                connection.events |= events
                self.enqueue(connection)
        self.serve()

    def _happened_to_one(self, fd: int, events: int) -> None:
        """The usual case: nobody else waits, so it has its turn without the queue, which costs time."""
        connection = self._watched.get(fd)
        if connection is not None:
            connection.events |= events
            self._waiting.served = connection.asker
            self._serve(connection, time.monotonic() + _ROUND)
            if connection.has_turn and self._next is None:
                self._next = self._loop.call_soon(self.serve)
