"""What /proc tells of the process that asks: its program and its environment."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

_WITNESS = "REPLUG_WITNESS"
_PATIENCE = 5.0  # seconds
_LONGEST = 4 * 1024 * 1024  # bytes; Linux allows no more for arguments and environment (execve(2))


@dataclass(frozen=True)
class Process:
    """A process as it was just now; a hint, not an authority, as its user can change all of it."""

    program: str
    """The path of what it executes."""
    environment: dict[str, str]
    """As it was started with."""


def look_at(pid: int) -> Process | None:
    """The process `pid`; None if it is gone or another user's.

    It blocks for up to some seconds. In the sandbox of the service /proc is closed to us, and the witness
    that $REPLUG_WITNESS names (systemd/replug-witness.socket) looks on our behalf.
    """
    try:
        return _in_proc(pid)
    except PermissionError:
        witness = os.environ.get(_WITNESS)
        try:
            return _ask(witness, pid) if witness else None
        except OSError:
            return None
    except OSError:
        return None


def _in_proc(pid: int) -> Process:
    program = os.readlink(f"/proc/{pid}/exe")
    with open(f"/proc/{pid}/environ", "rb") as file:
        return Process(program, _environment(file.read(_LONGEST).split(b"\0")))


def _ask(witness: str, pid: int) -> Process | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE)
        connection.connect(witness)
        connection.sendall(b"%d\n" % pid)
        answer = b""
        while len(answer) < _LONGEST and (piece := connection.recv(65536)):
            answer += piece
    program, *environment = answer.split(b"\0")
    return Process(os.fsdecode(program), _environment(environment)) if program else None


def _environment(entries: list[bytes]) -> dict[str, str]:
    pairs = (os.fsdecode(entry).partition("=") for entry in entries if b"=" in entry)
    return {name: value for name, _, value in pairs}
