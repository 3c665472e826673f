"""The control socket: what `replug` asks of the agent.

A second socket beside the agent's own, so that a forwarded agent connection can never reach it. One line of
text is the command, one JSON object the answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from contextlib import suppress
from typing import Any

from replug.agent.clients.listener import Listener, ListenerError, is_dead, listen_at
from replug.agent.clients.peer import Peer
from replug.agent.control.client import control_path
from replug.agent.keyring import Keyring
from replug.agent.keys.identity import Identity
from replug.agent.refusal import RefusalHistory
from replug.protocol.keys import fingerprint
from replug.token.identity import TokenFlag
from replug.token.served import ServedToken

log = logging.getLogger(__name__)

STATUS_VERSION = 1
"""Of the form of `status`; raised when a reader of the older form would misread it."""
_TRIES = (
    (TokenFlag.USER_PIN_LOCKED, "locked"),
    (TokenFlag.USER_PIN_FINAL_TRY, "final"),
    (TokenFlag.USER_PIN_COUNT_LOW, "low"),
)
_LONGEST_COMMAND = 1024
_PATIENCE = 5.0  # seconds for a client to say what it wants


class Control:
    """Answers on the control socket beside `agent_socket`."""

    def __init__(self, keyring: Keyring, history: RefusalHistory, agent_socket: str) -> None:
        self._keyring = keyring
        self._history = history
        self._agent_socket = agent_socket
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
        if command == "status":
            return self._status()
        if command == "forget":
            return {"version": STATUS_VERSION, "forgotten": self._keyring.forget_pins()}
        return {"error": f"unknown command {command!r}"}

    def _status(self) -> dict[str, Any]:
        keyring = self._keyring
        return {
            "version": STATUS_VERSION,
            "pid": os.getpid(),
            "socket": self._agent_socket,
            "locked": keyring.lock.locked,
            "allowed_modules": keyring.options.provider_patterns,
            "providers": [
                {"name": provider.name, "module": provider.module.path}
                for provider in keyring.identities.providers()
            ],
            "tokens": [
                self._token_status(token) for module in keyring.modules() for token in module.tokens.values()
            ],
            "software_keys": []
            if keyring.lock.locked
            else [_key_status(held) for held in keyring.identities.software_keys()],
            "refusals": [
                {
                    "time": refusal.when,
                    "request": refusal.request,
                    "program": refusal.program,
                    "reason": refusal.reason,
                    "next_step": refusal.next_step,
                }
                for refusal in self._history
            ],
        }

    def _token_status(self, token: ServedToken) -> dict[str, Any]:
        identities = self._keyring.identities
        # A locked agent shows its keys to nobody, here no more than there.
        held = [] if self._keyring.lock.locked else identities.on(token)
        lifetime = identities.lifetime_left(token)
        pin_left = self._keyring.pin_expires_in(token) if token.pin_remembered else None
        return {
            "label": token.identity.label,
            "manufacturer": token.identity.manufacturer,
            "model": token.identity.model,
            "serial": token.identity.serial,
            "state": token.state,
            "why": token.why,
            "pin_remembered": token.pin_remembered,
            "pin_expires_in": None if pin_left is None else round(pin_left),
            "pin_tries": _pin_tries(token),
            "expires_in": None if lifetime is None else round(lifetime),
            "last_inserted": token.last_inserted,
            "last_removed": token.last_removed,
            "keys": [_key_status(one) for one in held],
        }


def _pin_tries(token: ServedToken) -> str:
    """What the flags, when they were last read, said of the tries left."""
    for flag, word in _TRIES:
        if flag in token.flags:
            return word
    return "full"


def _key_status(held: Identity) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint(held.blob),
        "type": held.algorithm,
        "comment": held.comment.decode(errors="replace"),
        "certificate": held.is_certificate,
        "confirm": held.constraints.confirm,
        "restricted": bool(held.constraints.destinations),
    }
