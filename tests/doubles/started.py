"""Workers that are executed instead of forked: any program can be one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from replug.token.worker.forking import Forked

TOKEN_WORKER = (
    sys.executable,
    "-I",
    "-c",
    "import socket, sys; from replug.token.worker.inside.program import work; "
    "work(socket.socket(fileno=int(sys.argv[-1])))",
)
"""The worker for tokens; the descriptor of its connection is the last argument."""


class Started(Forked):
    """A child process that is given its connection."""

    def __init__(self, *command: str) -> None:
        """`command` is the token worker's unless it is another."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            self._child = subprocess.Popen(
                [*(command or TOKEN_WORKER), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        super().__init__(self._child.pid, os.pidfd_open(self._child.pid), ours)

    def wait(self) -> None:
        super().wait()
        self._child.wait()
