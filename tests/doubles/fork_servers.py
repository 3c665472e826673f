"""A fork server without the agent around it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from replug.token.worker.forking import ForkServer

FORK_SERVER = """
import signal, socket, sys
from replug.token.hardening import refuse_core_dumps, refuse_tracing
from replug.token.worker.forkserver import serve_forks
refuse_tracing()
refuse_core_dumps()
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
serve_forks(socket.socket(fileno=int(sys.argv[1])), lambda message: print(message.decode(), flush=True))
"""


class RunningForkServer(ForkServer):
    """One with a process of its own."""

    def __init__(self, program: str = FORK_SERVER) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        super().__init__(ours)
        self.requests = ours
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-c", program, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdout=subprocess.PIPE,
            )

    async def spare(self, program: str) -> int:
        """The process id of the one that is forked in advance, as soon as there is one."""
        while program not in self._spares:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
        return self._spares[program].pid

    def end(self) -> None:
        """As at the end of the agent: what it has forked ends with it."""
        self.close()
        self.requests.close()
        self.process.wait()


@contextmanager
def running_fork_server(program: str = FORK_SERVER) -> Iterator[RunningForkServer]:
    """A fork server that ends, if it has not, at the end; its workers have this process's environment."""
    server = RunningForkServer(program)
    try:
        yield server
    finally:
        server.end()
        assert server.process.stdout
        server.process.stdout.close()
