"""The agent's side of the fork server: asking it for a process."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket

from replug.token.worker.forkserver import HELLO_LENGTH


class Forked:
    """A process that was forked for us: not our child, so it is known by its pidfd."""

    def __init__(self, pid: int, pidfd: int, connection: socket.socket) -> None:
        """`connection` is our end of its socket pair, non-blocking."""
        self.pid = pid
        self.connection = connection
        self.exit_notice = pidfd
        """Readable when the process has ended; whoever watches it closes it then."""
        self._pidfd = os.dup(pidfd)

    def kill(self) -> None:
        """End it now; ProcessLookupError when it has ended."""
        if self._pidfd < 0:
            raise ProcessLookupError
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def wait(self) -> None:
        """It has ended; its parent reaps it."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


class ForkServer:
    """The process that forks workers: this process's parent, which lives at least as long."""

    def __init__(self, requests: socket.socket) -> None:
        """`requests` leads to `forkserver.serve_forks`."""
        requests.setblocking(False)
        self._requests = requests

    async def fork(self, program: str, patience: float) -> Forked:
        """A process that is about to be the worker `program` (a module's name), within `patience` seconds.

        Raises OSError when there can be none.
        """
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            with theirs:
                socket.send_fds(self._requests, [program.encode()], [theirs.fileno()])
            await _readable(ours, patience)
            greeting, descriptors, _, _ = socket.recv_fds(ours, HELLO_LENGTH, 1)
            if greeting == bytes([errno.ENOPKG]):
                raise OSError(
                    errno.ENOPKG, "replug was removed or replaced since the agent started; restart it"
                )
            if len(greeting) == 1:
                raise OSError(greeting[0], os.strerror(greeting[0]))
            if len(greeting) < HELLO_LENGTH or not descriptors:
                raise OSError(errno.ECHILD, "the new process ended at once")
            os.set_inheritable(descriptors[0], False)
            return Forked(int.from_bytes(greeting, "big"), descriptors[0], ours)
        except BaseException as error:
            ours.close()
            if isinstance(error, TimeoutError):
                raise OSError(errno.EAGAIN, "the process that forks workers does not answer") from error
            raise


async def _readable(connection: socket.socket, within: float) -> None:
    """Wait until there is something to read; TimeoutError."""
    loop = asyncio.get_running_loop()
    there = asyncio.Event()
    loop.add_reader(connection, there.set)
    try:
        async with asyncio.timeout(within):
            await there.wait()
    finally:
        loop.remove_reader(connection)
