"""The process at the other end of a Unix socket (unix(7), SO_PEERCRED)."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from functools import cached_property

_UCRED = struct.Struct("3i")


@dataclass(frozen=True)
class Peer:
    """The process that connected, as the kernel recorded it."""

    pid: int
    uid: int

    @classmethod
    def of(cls, client: socket.socket) -> Peer:
        """The peer of a connected Unix socket."""
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, _gid = _UCRED.unpack(credentials)
        peer = cls(pid, uid)
        peer.executable  # noqa: B018 - now: later the process may have become another
        return peer

    @cached_property
    def executable(self) -> tuple[int, int] | None:
        """Device and inode of the program that the process runs; None if that cannot be read."""
        try:
            state = os.stat(f"/proc/{self.pid}/exe")
        except OSError:
            return None
        return state.st_dev, state.st_ino

    @property
    def allowed(self) -> bool:
        """Whether this is our own user, or root, who could read our memory anyway."""
        return self.uid in (0, os.geteuid())

    @cached_property
    def program(self) -> str:
        """The program's name, if the process still exists, and its number; for display only."""
        # Read once per connection: reading it for every signature would add a tenth to its cost.
        try:
            with open(f"/proc/{self.pid}/comm", encoding="utf-8", errors="replace") as file:
                name = file.read().strip()
        except OSError:
            name = "process"
        return f"{name} (pid {self.pid})"
