"""The agent's side of the fork server: it is started when first needed, and again when it is gone."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys

from replug.token.worker.forkserver import HELLO_LENGTH


class Forked:
    """A process that was forked for us: not our child, so it is known by its pidfd."""

    def __init__(self, pid: int, pidfd: int, connection: socket.socket) -> None:
        """`connection` is our end of its socket pair, non-blocking."""
        self.pid = pid
        self.connection = connection
        self.exit_notice = pidfd
        """Readable when the process has ended; its watcher closes it then."""
        self._pidfd = os.dup(pidfd)

    def kill(self) -> None:
        """End it now; ProcessLookupError when it has ended."""
        if self._pidfd < 0:
            raise ProcessLookupError
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def wait(self) -> None:
        """It has ended; the kernel reaps it."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


class ForkFailedError(OSError):
    """No further process can be started; the fork server reports the errno."""


class ForkServer:
    """Forks processes for workers; its own process is there from the first `fork` to `close`."""

    def __init__(self, patience: float) -> None:
        """`patience` is how long a fork may take, in seconds."""
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket
        self._closed = False

    def close(self) -> None:
        """End it, and with it all that it has forked; nothing is forked after this."""
        self._closed = True
        self._end()

    async def fork(self) -> Forked:
        """A process that is about to be a worker; OSError when that is not possible."""
        failure: Exception | None = None
        for _ in range(2):
            if self._closed:
                break
            if self._process is None:
                self._start()
            asked = self._process
            try:
                return await self._fork()
            except ForkFailedError:
                raise
            except (EOFError, OSError, TimeoutError) as error:
                # It was killed or stopped, and another will do. Another caller may have replaced it already.
                failure = error
                if self._process is asked:
                    self._end()
        raise OSError(errno.EAGAIN, "the process that forks workers does not answer") from failure

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None
            self._requests.close()

    def _start(self) -> None:
        self._requests, theirs = socket.socketpair()
        self._requests.setblocking(False)
        with theirs:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-m",
                    "replug.token.worker.forkserver",
                    str(os.getpid()),
                    str(theirs.fileno()),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # A module that prints would print into what a shell evaluates.
                stdout=subprocess.DEVNULL,
                cwd="/",
            )
        try:
            notice = os.pidfd_open(process.pid)
        except OSError:
            process.kill()
            process.wait()
            self._requests.close()
            raise
        self._process = process
        asyncio.get_running_loop().add_reader(notice, _ended, process, notice)

    async def _fork(self) -> Forked:
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            with theirs:
                socket.send_fds(self._requests, [b"f"], [theirs.fileno()])
            await _readable(ours, self._patience)
            greeting, descriptors, _, _ = socket.recv_fds(ours, HELLO_LENGTH, 1)
            if len(greeting) == 1:
                raise ForkFailedError(greeting[0], os.strerror(greeting[0]))
            if len(greeting) < HELLO_LENGTH or not descriptors:
                raise EOFError
            os.set_inheritable(descriptors[0], False)
            return Forked(int.from_bytes(greeting, "big"), descriptors[0], ours)
        except BaseException:
            ours.close()
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


def _ended(process: subprocess.Popen[bytes], notice: int) -> None:
    asyncio.get_running_loop().remove_reader(notice)
    os.close(notice)
    process.wait()
