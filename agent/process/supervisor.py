"""The process that was started: it forks the agent and its workers, and never holds a secret.

Another program of the user may have opened its memory before it could refuse that. The agent is its child,
whose memory was never open. Other programs know the agent by the supervisor's process id: signals sent to it
reach the agent, and it ends with the agent's exit status.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from functools import partial
from types import FrameType
from typing import Any, TypeVar

from replug.agent.process.daemon import SIGNALS, without_handled
from replug.token.hardening import end_with_parent, refuse_core_dumps, refuse_tracing
from replug.token.worker.forkserver import LEAVING, serve_forks

T = TypeVar("T")

_FOR_THEIR_END = 1.0  # seconds


class Supervisor:
    """Represents its child process `agent` to other programs."""

    def __init__(self, agent: int) -> None:
        """Call it with `SIGNALS` blocked, or one may be lost."""
        self._agent = agent
        self._notice = os.pidfd_open(agent)
        self._status: int | None = None
        self._leaves_with: int | None = None
        """The exit status that it has announced."""
        signal.signal(signal.SIGCHLD, self._reap)
        for number in SIGNALS:
            signal.signal(number, self._pass_on)

    def run(self, requests: socket.socket, tell: Callable[[bytes], None]) -> int:
        """Serve the agent's `requests` (see `serve_forks`) until it ends; return its exit status."""
        serve_forks(requests, partial(self._hear, tell))
        # This call still handles a signal that has arrived, before it removes the handler.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        status = self._end_of_agent() if self._status is None else os.waitstatus_to_exitcode(self._status)
        _wait_for_workers()
        return status

    def _hear(self, tell: Callable[[bytes], None], message: bytes) -> None:
        if message.startswith(LEAVING):
            self._leaves_with = int(message.removeprefix(LEAVING))
        else:
            tell(message)

    def _end_of_agent(self) -> int:
        """Wait for its exit status; not for ever if it has said that it ends.

        While one of its threads waits for a file system that does not answer, the kernel does not let it end.
        """
        if self._leaves_with is None or _in_time(self._notice):
            return os.waitstatus_to_exitcode(os.waitpid(self._agent, 0)[1])
        signal.pidfd_send_signal(self._notice, signal.SIGKILL)
        return self._leaves_with

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._notice, number)

    def _reap(self, _number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._agent:
                    self._status = ended[1]


def run_supervised(work: Callable[[socket.socket], int]) -> int:
    """Call `work` in a process that has never been open to others, and return its exit status.

    What `work` gets leads to this process, which forks workers for it and never holds a secret.
    """
    refuse_tracing()
    refuse_core_dumps()
    mask = without_handled(signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS))
    requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    supervisor = os.getpid()
    child = os.fork()
    if child == 0:
        requests.close()
        end_with_parent(supervisor, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return work(theirs)
    supervision = Supervisor(child)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    theirs.close()
    return end_likewise(supervision.run(requests, lambda _: None))


def do_in_time(call: Callable[[], object]) -> None:
    """Call it in a process of its own, and wait until it has returned, but not for long.

    A file system that does not answer keeps a process from ending, however many threads it has.
    """
    try:
        child = os.fork()
    except OSError:  # there can be none now
        call()
        return
    if child == 0:
        try:
            call()
        finally:
            os._exit(0)
    notice = os.pidfd_open(child)
    _in_time(notice)
    os.close(notice)


def _in_time(notice: int) -> bool:
    """Whether a process ends soon."""
    poll = select.poll()
    poll.register(notice, select.POLLIN)
    return bool(poll.poll(_FOR_THEIR_END * 1000))


def run_until_signal(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in an event loop; SIGTERM and SIGHUP cancel it, so that it undoes what it has begun.

    SystemExit with the status that shells give such a signal, but not from the signal's handler: Python drops
    what that raises in a destructor, or in what import does with its locks.
    """
    import asyncio

    received: list[int] = []

    async def cancellable() -> T:
        loop = asyncio.get_running_loop()
        working = loop.create_task(work)

        def cancel(number: int) -> None:
            received.append(number)
            working.cancel()

        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, cancel, number)
        return await working

    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        raise SystemExit(128 + received[0]) from None


def _wait_for_workers() -> None:
    """Let the workers end in an orderly way; those that take long end with this process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    end = time.monotonic() + _FOR_THEIR_END
    with contextlib.suppress(ChildProcessError):
        while (left := end - time.monotonic()) > 0:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                signal.sigtimedwait([signal.SIGCHLD], left)


def end_likewise(status: int) -> int:
    """Return `status`, or die of the same signal if it is a negative signal number."""
    if status < 0:
        with contextlib.suppress(OSError, ValueError):  # SIGKILL has no handler to reset
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status
