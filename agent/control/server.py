"""The control socket: the agent's side of what `replug` asks.

It is a second socket beside the agent's own, so that a forwarded agent connection can never reach it. The
command is one line of text, the answer one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar

from replug.agent.clients.listener import Listener, ListenerError, is_dead, listen_at
from replug.agent.clients.peer import Peer
from replug.agent.control.client import control_path
from replug.agent.control.shared_answer import Make, SharedAnswer
from replug.token.bytes_only import BytesOnlyListener, Disposal
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread
from replug.token.prompts.processes import known_by_command
from replug.token.requester import Requester
from replug.token.turns import who_makes_room

log = logging.getLogger(__name__)

_LONGEST_COMMAND = 1024
_PATIENCE = 5.0  # seconds for a client to say what it wants, and for it to read the answer
_PARTING = 1.0  # seconds to remove the socket
_MOST_OF_A_PROCESS = 4  # connections at once
_MOST = 32
_PIECE = 64 * 1024  # bytes of an answer that are written at once, and are then kept for a client
_ACCEPTS_PER_TURN = 2  # so that what each has sent is read before many others come
_BACKLOG = 128

asker: ContextVar[Peer] = ContextVar("asker")
"""Who has asked first for what a command answers."""


def _not_needed(late: Listener) -> None:
    late.socket.close()
    late.remove()


class Control:
    """Answers on the control socket beside `agent_socket`; `commands` make the answers, by name."""

    def __init__(self, agent_socket: str, commands: Mapping[str, Make]) -> None:
        self._answers = {name: SharedAnswer(make) for name, make in commands.items()}
        self._path = control_path(agent_socket)
        self._listener: Listener | None = None
        self._server: asyncio.AbstractServer | None = None
        self._connections: dict[asyncio.StreamWriter, int] = {}
        """Each with its process, the oldest first."""
        self._silent: dict[asyncio.StreamWriter, None] = {}
        """Those that have not said what they want, the oldest first."""
        self._asking: dict[asyncio.StreamWriter, Requester] = {}
        """The others, each with its program and command."""
        self._disposal = Disposal()

    async def start(self) -> None:
        """Bind, in place of a dead agent's socket, and listen. Without it only `replug` does not work."""
        try:
            async with asyncio.timeout(_PATIENCE):
                self._listener = await in_daemon_thread(Share.CONTROL_SOCKET, self._bound, _not_needed)
        except TimeoutError:
            log.warning("no control socket: its folder does not answer")
            return
        except (OSError, ListenerError, TooManyThreadsError) as error:
            log.warning("no control socket: %s", error)
            return
        # asyncio accepts as many in one turn of the loop as its "backlog", which is to be more in the kernel.
        listening = BytesOnlyListener.of(self._listener.socket, self._disposal.take)
        # Not start_unix_server: from Python 3.13 on that looks at the path, and removes it.
        self._server = await asyncio.start_server(
            self._serve, sock=listening, limit=_LONGEST_COMMAND, backlog=_ACCEPTS_PER_TURN
        )
        listening.listen(_BACKLOG)

    def _bound(self) -> Listener:
        with suppress(FileNotFoundError):
            if is_dead(self._path):
                os.unlink(self._path)
        return listen_at(self._path)

    async def close(self) -> None:
        """Stop and remove the socket, if its folder answers."""
        if self._server is not None and self._listener is not None:
            self._server.close()
            with suppress(TimeoutError, TooManyThreadsError):
                async with asyncio.timeout(_PARTING):
                    await in_daemon_thread(Share.CONTROL_SOCKET, self._listener.remove)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer.of(writer.get_extra_info("socket"))
        if peer.is_foreign or not self._has_room_for(peer):
            writer.transport.abort()
            return
        asker.set(peer)
        self._connections[writer] = peer.pid
        self._silent[writer] = None
        try:
            async with asyncio.timeout(_PATIENCE):
                command = (await reader.readline()).decode(errors="replace").strip()
            if writer not in self._silent:
                return  # it has made room for another
            del self._silent[writer]
            self._asking[writer] = known_by_command(peer.requester)
            answer = await self._answer(command)
            async with asyncio.timeout(_PATIENCE):
                # In pieces, so that all have the same answer, and none a copy of its own.
                for begin in range(0, len(answer), _PIECE):
                    writer.write(answer[begin : begin + _PIECE])
                    await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, ValueError) as error:
            log.debug("control connection ended: %s", error)
        finally:
            # What a client does not read would stay in memory.
            writer.transport.abort()
            self._forget(writer)

    def _forget(self, writer: asyncio.StreamWriter) -> None:
        for kept in (self._connections, self._silent, self._asking):
            kept.pop(writer, None)

    def _has_room_for(self, peer: Peer) -> bool:
        """Whether one more is served.

        The one that has been silent for longest makes room for it, or else the newest of the command that has
        most, of the program that has most, if that has more than the newcomer's: a command has any number of
        processes.
        """
        if Counter(self._connections.values())[peer.pid] >= _MOST_OF_A_PROCESS:
            return False
        if len(self._connections) < _MOST:
            return True
        leaving = next(iter(self._silent), None)
        if leaving is None:
            leaves = who_makes_room(Counter(self._asking.values()), known_by_command(peer.requester))
            if leaves is None:
                return False
            leaving = [one for one, its in self._asking.items() if its == leaves][-1]
        self._forget(leaving)
        leaving.transport.abort()
        return True

    async def _answer(self, command: str) -> bytes:
        answer = self._answers.get(command)
        if answer is None:
            return json.dumps({"error": f"unknown command {command!r}"}).encode() + b"\n"
        return await answer.get()
