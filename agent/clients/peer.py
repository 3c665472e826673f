"""The process at the other end of a Unix socket (unix(7), SO_PEERCRED)."""

from __future__ import annotations

import functools
import os
import socket
import stat
import struct
from dataclasses import dataclass
from functools import cached_property

_UCRED = struct.Struct("3i")
_UNMAPPED = 65534
"""The number that a user namespace shows for users it does not map (user_namespaces(7))."""


@dataclass(frozen=True)
class Peer:
    """The process that connected, as the kernel recorded it."""

    pid: int
    uid: int

    @classmethod
    def of(cls, client: socket.socket) -> Peer:
        """The peer of a connected Unix socket.

        A service with PrivateUsers= cannot tell root from other users. The peer is root if the socket's mode
        lets no other user connect.
        """
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, _gid = _UCRED.unpack(credentials)
        if uid == _UNMAPPED and _hides_root() and _is_for_owner_only(client.getsockname()):
            uid = 0
        return cls(pid, uid)

    @property
    def allowed(self) -> bool:
        """Whether this is our own user, or root, who could read our memory anyway."""
        return self.uid in (0, os.geteuid())

    def __str__(self) -> str:
        """The program's name if the process still exists; for display only."""
        return self._description

    @cached_property
    def _description(self) -> str:
        # Read once per connection: reading it for every signature would add a tenth to its cost.
        try:
            with open(f"/proc/{self.pid}/comm", encoding="utf-8", errors="replace") as file:
                name = file.read().strip()
        except OSError:
            name = "process"
        return f"{name} (pid {self.pid})"


@functools.cache
def _hides_root() -> bool:
    """Whether this process is in a user namespace that does not map the root user outside."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            ranges = [tuple(map(int, line.split())) for line in file]
    except (OSError, ValueError):
        return False
    return not any(outside == 0 for _inside, outside, _count in ranges)


def _is_for_owner_only(path: str | bytes) -> bool:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISSOCK(status.st_mode) and not status.st_mode & 0o077 and status.st_uid == os.geteuid()
