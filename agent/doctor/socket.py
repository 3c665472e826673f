"""Which agent listens at $SSH_AUTH_SOCK: found out through the agent protocol and from the kernel."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replug.agent.clients.peer import Peer
from replug.agent.control.client import AskError, ask_at
from replug.agent.control.listing import ask_for_list
from replug.agent.control.places import program_name
from replug.protocol.messages import ListedIdentity

_PATIENCE = 15.0  # seconds; the first connection may have to start the agent


@dataclass(frozen=True)
class SocketReport:
    """The result of connecting to a path."""

    path: str = ""
    reason: str = ""
    """Why no agent answers; empty if one does."""
    program: str = ""
    """The name of the process that made the socket; empty if it cannot be found out."""
    keys: tuple[ListedIdentity, ...] = ()
    """What it offers to ssh."""
    status: dict[str, Any] | None = None
    """The status of a replug-agent; None for anything else."""


def examine(path: str, proc: Path) -> SocketReport:
    """Connect to the agent at `path`, which may start it, and list its keys."""
    if not path:
        return SocketReport(reason="SSH_AUTH_SOCK is not set")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_PATIENCE)
        try:
            client.connect(path)
        except FileNotFoundError:
            return SocketReport(path, f"{path} does not exist")
        except ConnectionRefusedError:
            return SocketReport(path, f"{path} is a stale socket: no agent listens there")
        except OSError as error:
            return SocketReport(path, f"{path}: {error.strerror or error}")
        program = program_name(Peer.of(client).pid, proc)
        try:
            keys = ask_for_list(client)
        except (EOFError, ConnectionError):
            # systemd does this at the agent's socket if the agent does not start.
            reason = f"{path} is closed without an answer: no agent starts there"
            return SocketReport(path, reason, program)
        except (OSError, ValueError):
            return SocketReport(path, f"the program that listens at {path} is not an ssh agent", program)
    try:
        status = ask_at(path, "status")
    except AskError:
        status = None
    return SocketReport(path, "", program, keys, status)
