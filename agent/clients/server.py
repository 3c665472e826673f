"""Accepts clients on a Unix socket: our own user's and guests, and at most as many as descriptors allow."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from replug.agent.clients.connection import Connection, Conversation
from replug.agent.clients.memory import Memory
from replug.agent.clients.peer import Peer
from replug.agent.clients.rounds import Rounds
from replug.agent.clients.waiting import Waiting
from replug.token.bytes_only import BytesOnlyListener
from replug.token.errors import ExplainedError
from replug.token.requester import Program, Requester
from replug.token.turns import one_less, who_has_most

log = logging.getLogger(__name__)

_RESERVED_DESCRIPTORS = 64
"""For workers, prompts, clients that wait for room and the agent itself; half of all if there are fewer."""
_ACCEPTS_PER_TURN = 16  # what each has sent already is served at once
_LONG_UNUSED = 10.0  # seconds; ssh waits for its server between the listing and the signature
_MOST_OF_A_GUEST = 64  # connections, of all programs of that user
_MORE = 1  # connections more than another must have who makes room for it
_PAUSE = 0.5  # seconds, when descriptors run out all the same
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(eq=False)
class Entrance:
    """A listening socket, and what is begun with those who connect to it."""

    listener: BytesOnlyListener
    conversation: Callable[[Peer], Conversation]
    why_no_guests: Callable[[], ExplainedError | None]
    """Why other users' connections are closed at once, or None."""
    view: str = ""
    """The path of the socket, if it is one for some of the keys."""
    connections: set[Connection] = field(default_factory=set)
    """Those who came in by it; only `Server` changes this, and what follows."""
    resume: asyncio.TimerHandle | None = None


class Server:
    """Serves all who come in by its entrances, with one limit, and in turns.

    `not_served` is called for a connection that is closed at once.
    """

    def __init__(self, waiting: Waiting, not_served: Callable[[Peer, ExplainedError], None]) -> None:
        self._not_served = not_served
        self._loop = asyncio.get_running_loop()
        self._entrances: set[Entrance] = set()
        self._rounds = Rounds(waiting)
        self._memory = Memory()
        self._connections: set[Connection] = set()
        self._of_program: Counter[Program | None] = Counter()
        """How many connections each program has."""
        self._of_process: Counter[Requester] = Counter()
        """The same of processes."""
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        reserved = min(_RESERVED_DESCRIPTORS, descriptors // 2)
        self._limit = max(1, descriptors - reserved)
        self._waiting: deque[tuple[socket.socket, Peer, Entrance]] = deque()
        """Clients that there is no room for yet, as they have no fewer connections than others."""
        self._most_waiting = (reserved + 1) // 2
        self._said_full = False
        if descriptors <= 2 * _RESERVED_DESCRIPTORS:
            log.warning(
                "only %d clients at once: the limit of open files is %d (ulimit -n)", self._limit, descriptors
            )

    def open(self, entrance: Entrance) -> None:
        """Serve those who connect there."""
        self._entrances.add(entrance)
        entrance.listener.setblocking(False)
        self._listen(entrance)

    def shut(self, entrance: Entrance) -> None:
        """Accept nobody there any more, and close the connections of those who came in by it."""
        self._entrances.discard(entrance)
        if entrance.resume is not None:
            entrance.resume.cancel()
        self._loop.remove_reader(entrance.listener)
        for waiting in [one for one in self._waiting if one[2] is entrance]:
            self._waiting.remove(waiting)
            waiting[0].close()
        for connection in list(entrance.connections):
            connection.close()

    def close(self) -> None:
        """Stop accepting and close every connection."""
        for entrance in list(self._entrances):
            self.shut(entrance)
        self._rounds.close()

    def _acceptable(self, entrance: Entrance) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                client, _ = entrance.listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                break
            except (OSError, MemoryError) as error:
                if isinstance(error, OSError) and error.errno not in _OUT_OF_RESOURCES:
                    raise
                reason = error.strerror if isinstance(error, OSError) else "out of memory"
                log.warning("cannot accept connections: %s", reason)
                self._loop.remove_reader(entrance.listener)
                entrance.resume = self._loop.call_later(_PAUSE, self._listen, entrance)
                break
            try:
                self._accept(client, entrance)
            except Exception as error:
                client.close()
                log.error("connection closed: %s", str(error) or type(error).__name__)
        self._rounds.serve()

    def _make_room(self, newcomer: Requester) -> bool:
        """Close a connection, if the newcomer has fewer than who has most, or one was not used for long.

        Programs are compared first, then the processes of the newcomer's. Whoever has most loses the one that
        waits for nothing and was not used for longest; if all wait for something, the oldest of those.
        """
        if not self._said_full:
            self._said_full = True
            log.warning(
                "%d clients: more take the place of unused ones, or wait until one leaves (ulimit -n)",
                self._limit,
            )
        richest = who_has_most(self._of_process)
        fewer = self._of_program[newcomer.program] + _MORE < self._of_program[richest.program]
        if not fewer and richest.program == newcomer.program:
            fewer = self._of_process[newcomer] + _MORE < self._of_process[richest]
        theirs = [one for one in self._connections if one.asker == richest]
        victim = min(theirs, key=lambda one: (not one.idle, one.used))
        if not fewer and not (victim.idle and time.monotonic() - victim.used > _LONG_UNUSED):
            return False
        victim.close()
        return True

    def _accept(self, client: socket.socket, entrance: Entrance) -> None:
        peer = Peer.of(client, entrance.view)
        why_not = self._why_not(peer, entrance) if peer.is_foreign else None
        if why_not is not None:
            client.close()
            self._not_served(peer, why_not)
            return
        if len(self._connections) < self._limit or self._make_room(peer.requester):
            self._serve(client, peer, entrance)
        elif len(self._waiting) < self._most_waiting:
            self._waiting.append((client, peer, entrance))
        else:
            client.close()  # not left in the backlog: others come after it who have fewer

    def _why_not(self, guest: Peer, entrance: Entrance) -> ExplainedError | None:
        """Why another user's connection is closed; None if it is served."""
        program = guest.requester.program
        waiting = sum(peer.requester.program == program for _, peer, _ in self._waiting)
        if self._of_program[program] + waiting < _MOST_OF_A_GUEST:
            return entrance.why_no_guests()
        return ExplainedError(f"user {guest.uid} has {_MOST_OF_A_GUEST} connections", "close some of them")

    def _serve(self, client: socket.socket, peer: Peer, entrance: Entrance) -> None:
        client.setblocking(False)
        requester, conversation = peer.requester, entrance.conversation(peer)
        closed = partial(self._closed, entrance)
        connection = Connection(client, requester, conversation, closed, self._rounds, self._memory)
        self._connections.add(connection)
        entrance.connections.add(connection)
        self._of_program[requester.program] += 1
        self._of_process[requester] += 1
        self._rounds.enqueue(connection)  # its first request has mostly arrived already

    def _closed(self, entrance: Entrance, connection: Connection) -> None:
        self._connections.discard(connection)
        entrance.connections.discard(connection)
        one_less(self._of_program, connection.asker.program)
        one_less(self._of_process, connection.asker)
        if self._waiting:
            # After a newcomer that it made room for.
            self._loop.call_soon(self._serve_waiting)

    def _serve_waiting(self) -> None:
        while self._waiting and len(self._connections) < self._limit:
            client, peer, entrance = self._waiting.popleft()
            try:
                self._serve(client, peer, entrance)
            except Exception as error:
                client.close()
                log.error("connection closed: %s", str(error) or type(error).__name__)
        self._rounds.serve()

    def _listen(self, entrance: Entrance) -> None:
        self._loop.add_reader(entrance.listener, self._acceptable, entrance)
