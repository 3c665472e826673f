"""Waits for many clients at a fraction of the cost of the event loop's own bookkeeping."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
from collections.abc import Callable

log = logging.getLogger(__name__)

_EVENTS_PER_TURN = 64  # then the loop's other work has its turn
_READABLE = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP
_WRITABLE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR


class Poller:
    """Calls back like `loop.add_reader` and its kind, by an epoll of its own that the loop watches.

    asyncio makes a handle and a context for every event and a key for every registration: half the time of
    a listing, and two thirds for clients that connect for each.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], object]] = {}
        self._writers: dict[int, Callable[[], object]] = {}
        self._loop.add_reader(self._epoll.fileno(), self._turn)

    def close(self) -> None:
        """Stop calling back."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def add_reader(self, client: socket.socket, callback: Callable[[], object]) -> None:
        """Call `callback` whenever there is something to read, or the connection has ended."""
        self._add(client.fileno(), self._readers, callback)

    def add_writer(self, client: socket.socket, callback: Callable[[], object]) -> None:
        """Call `callback` whenever something can be written."""
        self._add(client.fileno(), self._writers, callback)

    def remove_reader(self, client: socket.socket) -> None:
        """Undo `add_reader`, if it was called."""
        self._remove(client.fileno(), self._readers)

    def remove_writer(self, client: socket.socket) -> None:
        """Undo `add_writer`, if it was called."""
        self._remove(client.fileno(), self._writers)

    def _add(
        self, fd: int, callbacks: dict[int, Callable[[], object]], callback: Callable[[], object]
    ) -> None:
        watched = fd in self._readers or fd in self._writers
        callbacks[fd] = callback
        if watched:
            self._epoll.modify(fd, self._wanted(fd))
        else:
            self._epoll.register(fd, self._wanted(fd))

    def _remove(self, fd: int, callbacks: dict[int, Callable[[], object]]) -> None:
        if callbacks.pop(fd, None) is None or self._epoll.closed:
            return
        if fd in self._readers or fd in self._writers:
            self._epoll.modify(fd, self._wanted(fd))
        else:
            self._epoll.unregister(fd)

    def _wanted(self, fd: int) -> int:
        return (select.EPOLLIN if fd in self._readers else 0) | (
            select.EPOLLOUT if fd in self._writers else 0
        )

    def _turn(self) -> None:
        readers, writers = self._readers, self._writers
        for fd, event in self._epoll.poll(0, _EVENTS_PER_TURN):
            try:
                # A callback may remove the other one, and may close its own connection.
                if event & _READABLE and fd in readers:
                    readers[fd]()
                if event & _WRITABLE and fd in writers:
                    writers[fd]()
            except Exception:
                log.exception("a connection's callback failed")
