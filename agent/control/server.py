"""The control socket: the agent's side of what `replug` asks.

It is a second socket beside the agent's own, so that a forwarded agent connection can never reach it. The
command is one line of text, the answer one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from replug.agent.clients.listener import Listener, ListenerError, is_dead, listen_at
from replug.agent.clients.peer import Peer
from replug.agent.control.client import control_path

log = logging.getLogger(__name__)

_LONGEST_COMMAND = 1024
_PATIENCE = 5.0  # seconds for a client to say what it wants


class Control:
    """Answers on the control socket beside `agent_socket`; `commands` make the answers, by name."""

    def __init__(self, agent_socket: str, commands: Mapping[str, Callable[[], dict[str, Any]]]) -> None:
        self._commands = commands
        self._path = control_path(agent_socket)
        self._listener: Listener | None = None
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """Bind, in place of a dead agent's socket, and listen. Without it only `replug` does not work."""
        try:
            with suppress(FileNotFoundError):
                if is_dead(self._path):
                    os.unlink(self._path)
            self._listener = listen_at(self._path)
        except (OSError, ListenerError) as error:
            log.warning("no control socket: %s", error)
            return
        self._server = await asyncio.start_unix_server(
            self._serve, sock=self._listener.socket, limit=_LONGEST_COMMAND
        )

    def close(self) -> None:
        """Stop and remove the socket."""
        if self._server is not None and self._listener is not None:
            self._server.close()
            self._listener.remove()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if Peer.of(writer.get_extra_info("socket")).allowed:
                async with asyncio.timeout(_PATIENCE):
                    command = (await reader.readline()).decode(errors="replace").strip()
                    writer.write(json.dumps(self._answer(command)).encode() + b"\n")
                    await writer.drain()
        except (TimeoutError, OSError, ValueError) as error:
            log.debug("control connection ended: %s", error)
        finally:
            writer.close()

    def _answer(self, command: str) -> dict[str, Any]:
        answer = self._commands.get(command)
        return answer() if answer is not None else {"error": f"unknown command {command!r}"}
