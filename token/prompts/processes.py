"""What /proc says of a process and its ancestors (proc(5)), and which command they belong to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from replug.token.requester import Requester

_MOST_ANCESTORS = 16
_LARGEST = 64 * 1024  # bytes of a file in /proc that is read
_REMOTE = ("sshd", "sshd-session", "sshd-auth")
"""Their clients are on other machines, and the terminal of their ancestors is not the client's."""

Command = tuple[int, int]
"""The id of its first process and when that was started."""


@dataclass(frozen=True)
class Process:
    """What /proc/PID/stat says."""

    pid: int
    name: str
    parent: int
    group: int
    session: int
    """The id of its leader, who may have a terminal for all of them."""
    terminal: int
    """As a number (kdev_t.h); 0 is none."""
    foreground_group: int
    started: int
    """In clock ticks since boot."""
    cgroup: str = ""
    """Of cgroups(7); systemd gives each service and each program of a desktop its own."""

    @property
    def device(self) -> int:
        """That of its terminal, as in st_rdev; 0 is none."""
        # The number is coded as in kdev_t.h, new_encode_dev.
        return os.makedev(self.terminal >> 8 & 0xFFF, self.terminal & 0xFF | self.terminal >> 12 & 0xFFF00)

    @classmethod
    def read(cls, pid: int) -> Process | None:
        """The process; None if it is gone or another user's."""
        try:
            status, text, cgroup = (_read(f"/proc/{pid}/{name}") for name in ("status", "stat", "cgroup"))
        except OSError:
            return None
        uid = re.search(r"^Uid:\s+(\d+)", status, re.MULTILINE)
        if uid is None or int(uid[1]) != os.getuid():
            return None
        start, _, rest = text.rpartition(")")
        fields = rest.split()
        return cls(
            pid,
            name=start.partition("(")[2],
            parent=int(fields[1]),
            group=int(fields[2]),
            session=int(fields[3]),
            terminal=int(fields[4]),
            foreground_group=int(fields[5]),
            started=int(fields[19]),
            cgroup=cgroup,
        )


def _read(path: str) -> str:
    """The text of a file of /proc. OSError.

    With few system calls, as all clients wait while the loop reads it for one.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _LARGEST).decode(errors="replace")
    finally:
        os.close(descriptor)


def with_ancestors(pid: int | None) -> Iterator[Process]:
    """The process, its parent and so on, while they are our user's; up to an sshd."""
    younger: Process | None = None
    for _ in range(_MOST_ANCESTORS):
        process = Process.read(pid) if pid else None
        if process is None or process.name in _REMOTE:
            return
        if younger is not None and process.started > younger.started:
            return  # the parent is gone and its number was reused
        yield process
        younger, pid = process, process.parent


def command_of(pid: int | None) -> Command | None:
    """The command that process `pid` belongs to: one that a shell on a terminal, the desktop or the service
    manager has started, or for which a terminal was made; with all that came of it. None for a process that
    has left the one that started it.
    """
    first: Process | None = None
    for process in with_ancestors(pid):
        leads_a_terminal = process.pid == process.session and process.terminal != 0
        if first is not None and (leads_a_terminal or process.cgroup != first.cgroup):
            break
        if _starts_all(process):
            if first is None or first.pid == pid:
                return None
            break
        first = process
        if leads_a_terminal:
            break
    if first is None or (first.pid == pid and first.parent == 1):
        return None
    return first.pid, first.started


def known_by_command(asker: Requester) -> Requester:
    """`asker` with its command in the place of its process.

    There are as many processes of one program, such as ssh-add, as somebody likes.
    """
    command = command_of(asker.pid)
    return Requester(asker.program, command[0] if command else 0)


def _starts_all(process: Process) -> bool:
    """Whether this is the service manager or process 1, which get those that have left their parents."""
    return process.pid == 1 or (process.parent == 1 and process.name == "systemd")
