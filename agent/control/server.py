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
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

from replug.agent.clients.listener import Listener, ListenerError, is_dead, listen_at
from replug.agent.clients.peer import Peer
from replug.agent.control.client import control_path
from replug.token.bytes_only import BytesOnlyListener, Disposal
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread
from replug.token.pieces import Pieces
from replug.token.requester import requester
from replug.token.turns import FairSemaphore

log = logging.getLogger(__name__)

_LONGEST_COMMAND = 1024
_PATIENCE = 5.0  # seconds for a client to say what it wants, and for it to read the answer
_PARTING = 1.0  # seconds to remove the socket
_MOST_OF_A_PROCESS = 4  # connections at once
_MOST = 32
_ACCEPTS_PER_TURN = 2  # so that what each has sent is read before many others come
_BACKLOG = 128

Answer: TypeAlias = dict[str, Any]
Commands: TypeAlias = Mapping[str, Callable[[], Answer | Awaitable[Answer]]]


def _not_needed(late: Listener) -> None:
    late.socket.close()
    late.remove()


class Control:
    """Answers on the control socket beside `agent_socket`; `commands` make the answers, by name."""

    def __init__(self, agent_socket: str, commands: Commands) -> None:
        self._commands = commands
        self._path = control_path(agent_socket)
        self._listener: Listener | None = None
        self._server: asyncio.AbstractServer | None = None
        self._connections: dict[asyncio.StreamWriter, int] = {}
        """Each with its process, the oldest first."""
        self._silent: dict[asyncio.StreamWriter, None] = {}
        """Those that have not said what they want, the oldest first."""
        self._turn = FairSemaphore(1)
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
        if not peer.allowed or not self._has_room_for(peer):
            writer.transport.abort()
            return
        requester.set(peer.requester)
        self._connections[writer] = peer.pid
        self._silent[writer] = None
        try:
            async with asyncio.timeout(_PATIENCE):
                command = (await reader.readline()).decode(errors="replace").strip()
            self._silent.pop(writer, None)
            answer = await self._answer(command)
            async with asyncio.timeout(_PATIENCE):
                writer.write(answer + b"\n")
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, ValueError) as error:
            log.debug("control connection ended: %s", error)
        finally:
            # What a client does not read would stay in memory.
            writer.transport.abort()
            self._silent.pop(writer, None)
            self._connections.pop(writer, None)

    def _has_room_for(self, peer: Peer) -> bool:
        """Whether one more is served.

        The one that has been silent for longest makes room for it, or else the newest of the process that has
        most, if that has more.
        """
        counts = Counter(self._connections.values())
        if counts[peer.pid] >= _MOST_OF_A_PROCESS:
            return False
        if len(self._connections) < _MOST:
            return True
        leaving = next(iter(self._silent), None)
        if leaving is None:
            process, most = counts.most_common(1)[0]
            if most <= counts[peer.pid] + 1:
                return False
            leaving = [one for one, its in self._connections.items() if its == process][-1]
        self._silent.pop(leaving, None)
        del self._connections[leaving]
        leaving.transport.abort()
        return True

    async def _answer(self, command: str) -> bytes:
        ask = self._commands.get(command)
        if ask is None:
            return json.dumps({"error": f"unknown command {command!r}"}).encode()
        # One after the other: an answer that names many keys takes its time.
        async with self._turn:
            answer = ask()
            await asyncio.sleep(0)
        if isinstance(answer, Awaitable):
            answer = await answer
        async with self._turn:
            return await _encoded(answer)


async def _encoded(answer: Answer) -> bytes:
    """The answer as JSON."""
    pieces, fields = Pieces(), []
    for name, value in answer.items():
        encoded = []
        for one in value if isinstance(value, list) else ():
            await pieces.next()
            encoded.append(json.dumps(one))
        text = f"[{', '.join(encoded)}]" if isinstance(value, list) else json.dumps(value)
        fields.append(f"{json.dumps(name)}: {text}")
    return f"{{{', '.join(fields)}}}".encode()
