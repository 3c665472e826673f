"""The environment of the process that asks, as /proc or the witness shows it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

_WITNESS = "REPLUG_WITNESS"
_PATIENCE = 5.0  # seconds
_LONGEST = 4 * 1024 * 1024  # bytes; Linux allows no more for arguments and environment (execve(2))


def environment_of(pid: int) -> dict[str, str]:
    """The environment that process `pid` was started with; empty if it is gone or another user's.

    It is a hint, not an authority: the process can change it. This blocks for up to some seconds. In the
    sandbox of the service, /proc hides other processes, and the witness that $REPLUG_WITNESS names
    (systemd/replug-witness.socket) reads it for us.
    """
    try:
        return _from_proc(pid)
    except PermissionError:
        witness = os.environ.get(_WITNESS)
        try:
            return _from_witness(witness, pid) if witness else {}
        except OSError:
            return {}
    except OSError:
        return {}


def _from_proc(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/environ", "rb") as file:
        return _parse(file.read(_LONGEST).split(b"\0"))


def _from_witness(witness: str, pid: int) -> dict[str, str]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE)
        connection.connect(witness)
        connection.sendall(b"%d\n" % pid)
        answer = b""
        while len(answer) < _LONGEST and (piece := connection.recv(65536)):
            answer += piece
    _program, *environment = answer.split(b"\0")
    return _parse(environment)


def _parse(entries: Iterable[bytes]) -> dict[str, str]:
    pairs = (os.fsdecode(entry).partition("=") for entry in entries if b"=" in entry)
    return {name: value for name, _, value in pairs}
