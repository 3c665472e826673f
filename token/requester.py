"""On whose behalf something is done."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple, TypeAlias

Program: TypeAlias = tuple[int, str]
"""A program, by the mount namespace and the path that it was started from.

All programs of another user are one: it has the number of that user, and no path. So are all that use one of
the agent's further sockets: it has no namespace, and the path of the socket.
"""


class Guest(NamedTuple):
    """Another user, whom the agent is a service for."""

    uid: int
    name: str = ""
    """Empty until it was looked up."""


class Requester(NamedTuple):
    """The process that a request came from, and its program; the agent itself has neither."""

    program: Program | None = None
    """None for those that share their turns, as users can make any number of them (agent/clients/peer.py)."""
    pid: int = 0

    @classmethod
    def of_guest(cls, uid: int, pid: int) -> Requester:
        """A process of another user, however many programs that one may have."""
        return cls((uid, ""), pid)

    @classmethod
    def at_socket(cls, path: str, pid: int) -> Requester:
        """A process that uses a socket for some of the keys, whichever program and host it speaks for."""
        return cls((0, path), pid)

    @property
    def is_guest(self) -> bool:
        """Whether it is another user's: those are asked nothing, and shown nothing."""
        return self.program is not None and not self.program[1]


NOBODY = Requester()
requester: ContextVar[Requester] = ContextVar("requester", default=NOBODY)
"""Whose request the current task serves."""
