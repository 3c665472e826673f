"""Which agent listens at $SSH_AUTH_SOCK: found out through the agent protocol and from the kernel."""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replug.agent.clients.peer import Peer
from replug.agent.control.client import LIST_REQUEST, AskError, ask_at
from replug.agent.control.places import program_name

_PATIENCE = 15.0  # seconds; the first connection may have to start the agent
_LONGEST_REPLY = 256 * 1024  # bytes, as OpenSSH's clients have it
_IDENTITIES_ANSWER = 12


@dataclass(frozen=True)
class SocketReport:
    """The result of connecting to a path."""

    path: str = ""
    reason: str = ""
    """Why no agent answers; empty if one does."""
    program: str = ""
    """The name of the process that made the socket; empty if it cannot be found out."""
    identities: int = 0
    """How many keys it offers to ssh."""
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
            client.sendall(LIST_REQUEST)
            identities = _count(client)
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
    return SocketReport(path, "", program, identities, status)


def _count(client: socket.socket) -> int:
    """The number of keys in the reply; 0 for a refusal. Raises ValueError, EOFError if it is not a reply."""
    (length,) = struct.unpack(">I", _receive(client, 4))
    if not 0 < length <= _LONGEST_REPLY:
        raise ValueError(f"a reply of {length} bytes")
    reply = _receive(client, length)
    if reply[0] != _IDENTITIES_ANSWER:
        return 0
    return int.from_bytes(reply[1:5], "big")


def _receive(client: socket.socket, count: int) -> bytes:
    data, end = b"", time.monotonic() + _PATIENCE
    while len(data) < count:
        piece = client.recv(count - len(data))
        if not piece:
            raise EOFError("the connection ended")
        data += piece
        if time.monotonic() > end:
            raise TimeoutError("the reply comes too slowly")
    return data
