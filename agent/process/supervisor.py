"""The process that was started: it forks the agent and its workers, stands for them, and knows nothing.

Another process of the user may have opened its memory before it could refuse that. So no secret ever comes
here; the agent is a child, whose memory was never open. What was started stays in its place all the same: its
process id is the agent's to others, signals to it reach the agent, and it ends as the agent does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType

from replug.agent.process.daemon import SIGNALS
from replug.token.worker.forkserver import serve_forks


class Supervisor:
    """What the parent of the process `agent` does."""

    def __init__(self, agent: int) -> None:
        """To be called with `SIGNALS` blocked, lest one be lost."""
        self._agent = agent
        self._notice = os.pidfd_open(agent)
        self._status: int | None = None
        signal.signal(signal.SIGCHLD, self._reap)
        for number in SIGNALS:
            signal.signal(number, self._pass_on)

    def stand_for_agent(self, requests: socket.socket, tell: Callable[[bytes], None]) -> int:
        """Until the agent ends do what it asks on `requests` (see `serve_forks`); the exit status."""
        serve_forks(requests, tell)
        # A signal that has come is handled in here, before the handler is gone.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if self._status is None:
            _, self._status = os.waitpid(self._agent, 0)
        return os.waitstatus_to_exitcode(self._status)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._notice, number)

    def _reap(self, _number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._agent:
                    self._status = ended[1]


def end_likewise(status: int) -> int:
    """The exit status for what ended with `status`; does not return if a signal, -`status`, ended it."""
    if status < 0:
        with contextlib.suppress(OSError, ValueError):  # SIGKILL has no handler to be reset
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status
