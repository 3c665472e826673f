"""The process at the other end of a Unix socket (unix(7), SO_PEERCRED)."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass, field
from functools import cache

from replug.agent.clients.program_file import same_file
from replug.protocol.visible_text import visible
from replug.token.requester import Program, Requester

_UCRED = struct.Struct("3i")
_INSTALLED = ("/usr/", "/bin/", "/sbin/", "/lib/", "/snap/")
"""Folders in which only root can make files; no file system is asked whether that is so."""
_PERHAPS_NOT = "/usr/local/"
_LONGEST_NAME = 64  # bytes; those of programs have 15 at most


@dataclass(slots=True)
class Peer:
    """The process that connected, as the kernel recorded it."""

    pid: int
    uid: int
    view: str = ""
    """The path of the socket that it connected to, if that is for some of the keys."""
    executable: Program | None = field(init=False, compare=False)
    """The program that the process runs; None if that cannot be read."""
    requester: Requester = field(init=False, compare=False)
    """Whose turn it is when this process asks: its program's, if only root can put one there."""
    is_foreign: bool = field(init=False, compare=False)
    """Whether it is neither our own user's nor root's, who could read our memory anyway."""
    _program: str = field(init=False, compare=False, default="")

    def __post_init__(self) -> None:
        self.is_foreign = self.uid not in (0, os.geteuid())
        # Now: later the process may have become another. No file system is asked about the program's file: it
        # may be the client's own, and never answer.
        process = f"/proc/{self.pid}"
        installed = False
        try:
            path = os.readlink(f"{process}/exe")
            namespace = os.stat(f"{process}/ns/mnt").st_ino
            self.executable = namespace, path
            if path.startswith(_INSTALLED) and not path.startswith(_PERHAPS_NOT):
                # In others users mount at /usr what they like: in user namespaces, or by setuid programs that
                # make sandboxes. They can run that outside of these, too: so it is to be what we find there.
                installed = namespace == _mount_namespace() and same_file(f"{process}/exe", path)
        except OSError:
            self.executable = None
        if self.is_foreign:
            self.requester = Requester.of_guest(self.uid, self.pid)
        elif self.view:
            # What runs there may be many programs, of containers or of other hosts.
            self.requester = Requester.at_socket(self.view, self.pid)
        else:
            self.requester = Requester(self.executable if installed else None, self.pid)

    @classmethod
    def of(cls, client: socket.socket, view: str = "") -> Peer:
        """The peer of a connected Unix socket."""
        return cls(*credentials(client), view)

    @property
    def program(self) -> str:
        """The program's name, if the process still exists, its number, and a guest's; for display only."""
        # Read once per connection: reading it for every signature would add a tenth to its cost.
        if not self._program:
            try:
                with open(f"/proc/{self.pid}/comm", "rb", buffering=0) as file:
                    name = file.read(_LONGEST_NAME).decode(errors="replace").strip()
            except OSError:
                name = "process"
            whose = f", user {self.uid}" if self.is_foreign else ""
            self._program = f"{visible(name)} (pid {self.pid}{whose})"
        return self._program


def credentials(connected: socket.socket) -> tuple[int, int]:
    """The process id and the user id at the other end: of who connected, or of who began to listen."""
    found = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _gid = _UCRED.unpack(found)
    return pid, uid


@cache
def _mount_namespace() -> int:
    """Our own."""
    return os.stat("/proc/self/ns/mnt").st_ino
