"""The agent's side of the fork server: asking it for a process, and keeping one in advance."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import signal
import socket

from replug.token.bytes_only import Disposal, bytes_only, refuse_descriptors
from replug.token.worker.forkserver import HELLO_LENGTH, LEAVING
from replug.token.worker.passing import send_with_descriptor
from replug.token.worker.vigil import is_stopped

_QUIET = 1.0
"""Seconds after the last worker was wanted in which no spare is forked: those who wait have the machine."""
_SPARE_PATIENCE = 20.0  # seconds


class Forked:
    """A process that was forked for us: not our child, so it is known by its pidfd."""

    def __init__(self, pid: int, pidfd: int, connection: socket.socket) -> None:
        """`connection` is our end of its socket pair, non-blocking."""
        self.pid = pid
        self.connection = connection
        self.exit_notice = pidfd
        """Readable when the process has ended; whoever watches it closes it then."""
        self._pidfd = os.dup(pidfd)

    @property
    def is_usable(self) -> bool:
        """Whether it runs: another program may have ended or stopped it."""
        watched = select.poll()
        watched.register(self.exit_notice, select.POLLIN)
        return not watched.poll(0) and not is_stopped(self.pid)

    def discard(self) -> None:
        """End one that nobody has used."""
        with contextlib.suppress(ProcessLookupError):
            self.kill()
        self.connection.close()
        os.close(self.exit_notice)
        self.wait()

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
        self._disposal = Disposal()
        self._spares: dict[str, Forked] = {}
        """By program. They know nothing and wait for their first request."""
        self._plans: dict[str, asyncio.TimerHandle | asyncio.Task[None]] = {}

    async def fork_or_spare(self, program: str, patience: float) -> Forked:
        """Like `fork`, but one that was forked in advance if there is one, and soon another is.

        A request then waits neither for the fork nor for the memory that a fork copies when it first writes
        to it.
        """
        spare = self._spares.pop(program, None)
        self._plan(program)
        if spare is not None:
            if spare.is_usable:
                return spare
            spare.discard()
        return await self.fork(program, patience)

    def close(self) -> None:
        """End what was forked in advance."""
        for plan in self._plans.values():
            plan.cancel()
        while self._spares:
            self._spares.popitem()[1].discard()

    def leave(self, status: int) -> None:
        """This process ends with this status, and its parent need not wait for it for long."""
        with contextlib.suppress(OSError):  # the parent has ended
            self._requests.send(b"%b%d" % (LEAVING, status))
            self._requests.shutdown(socket.SHUT_RDWR)

    def _plan(self, program: str) -> None:
        if program in self._plans:
            self._plans[program].cancel()
        loop = asyncio.get_running_loop()
        self._plans[program] = loop.call_later(_QUIET, self._fork_spare, program)

    def _fork_spare(self, program: str) -> None:
        self._plans[program] = asyncio.get_running_loop().create_task(self._keep_spare(program))

    async def _keep_spare(self, program: str) -> None:
        with contextlib.suppress(OSError):  # whoever needs a worker will be told
            self._spares[program] = await self.fork(program, _SPARE_PATIENCE)

    async def fork(self, program: str, patience: float) -> Forked:
        """A process that is about to be the worker `program` (a module's name), within `patience` seconds.

        Raises OSError when there can be none.
        """
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            with theirs:
                send_with_descriptor(self._requests, program.encode(), theirs.fileno())
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
            refuse_descriptors(ours)  # a module may write to it
            connection = bytes_only(ours, self._disposal.take)
            return Forked(int.from_bytes(greeting, "big"), descriptors[0], connection)
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
