"""Accepts clients on a Unix socket: only our own user's, and at most as many as descriptors allow."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable

from replug.agent.clients.connection import Connection, Conversation
from replug.agent.clients.peer import Peer
from replug.agent.clients.rounds import Rounds
from replug.agent.clients.waiting import Waiting
from replug.token.turns import one_less

log = logging.getLogger(__name__)

_RESERVED_DESCRIPTORS = 64
"""For workers, prompts, the control socket's clients and the agent itself; half of all if there are fewer."""
_ACCEPTS_PER_TURN = 16  # what each has sent already is served at once
_LONG_UNUSED = 10.0  # seconds; ssh waits for its server between the listing and the signature
_PAUSE = 0.5  # seconds, when descriptors run out all the same
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Server:
    """Serves `listener` (bound, listening); `conversation` begins one with a peer."""

    def __init__(
        self, listener: socket.socket, conversation: Callable[[Peer], Conversation], waiting: Waiting
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._conversation = conversation
        self._rounds = Rounds(waiting)
        self._connections: set[Connection] = set()
        self._of_process: Counter[int] = Counter()
        """How many connections each process has."""
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._limit = max(1, descriptors - min(_RESERVED_DESCRIPTORS, descriptors // 2))
        self._said_full = False
        if descriptors <= 2 * _RESERVED_DESCRIPTORS:
            log.warning(
                "only %d clients at once: the limit of open files is %d (ulimit -n)", self._limit, descriptors
            )
        self._closing = False
        self._resume: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._loop.add_reader(listener, self._acceptable)

    def close(self) -> None:
        """Stop accepting and close every connection."""
        self._closing = True
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._listener)
        for connection in list(self._connections):
            connection.close()
        self._rounds.close()

    def _acceptable(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                break
            except (OSError, MemoryError) as error:
                if isinstance(error, OSError) and error.errno not in _OUT_OF_RESOURCES:
                    raise
                reason = error.strerror if isinstance(error, OSError) else "out of memory"
                log.warning("cannot accept connections: %s", reason)
                self._loop.remove_reader(self._listener)
                self._resume = self._loop.call_later(_PAUSE, self._listen)
                break
            full = len(self._connections) >= self._limit and not self._make_room()
            try:
                self._accept(client)
            except Exception as error:
                client.close()
                log.error("connection closed: %s", str(error) or type(error).__name__)
            if full:
                # This is the last; more wait in the backlog until a connection ends.
                self._loop.remove_reader(self._listener)
                break
        self._rounds.serve()

    def _make_room(self) -> bool:
        """Close a connection that nobody has used for long, of the process that has most; whether one was.

        A process that has more than half of them loses the one that it has not used for longest, however
        short that is.
        """
        process, count = self._of_process.most_common(1)[0]
        idle = [one for one in self._connections if one.process == process and one.idle]
        oldest = min(idle, key=lambda one: one.used, default=None)
        long_unused = oldest is not None and time.monotonic() - oldest.used > _LONG_UNUSED
        if not self._said_full:
            self._said_full = True
            log.warning(
                "%d clients: more take the place of unused ones, or wait until one leaves (ulimit -n)",
                self._limit,
            )
        if oldest is None or not (long_unused or 2 * count > self._limit):
            return False
        oldest.close()
        return True

    def _accept(self, client: socket.socket) -> None:
        peer = Peer.of(client)
        if not peer.allowed:
            fields = {"uid": peer.uid, "program": peer.program}
            log.warning("connection from another user refused", extra=fields)
            client.close()
            return
        client.setblocking(False)
        conversation = self._conversation(peer)
        connection = Connection(client, peer.pid, conversation, self._closed, self._rounds)
        self._connections.add(connection)
        self._rounds.admit(connection)  # its first request has mostly arrived already
        self._of_process[peer.pid] += 1

    def _closed(self, connection: Connection) -> None:
        was_full = len(self._connections) >= self._limit
        self._connections.discard(connection)
        one_less(self._of_process, connection.process)
        if was_full and not self._closing:
            self._listen()

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._acceptable)
