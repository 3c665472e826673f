"""On whose behalf something is done."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple, TypeAlias

Program: TypeAlias = tuple[int, str]
"""A program, by the mount namespace and the path that it was started from."""


class Requester(NamedTuple):
    """The process that a request came from, and its program; the agent itself has neither."""

    program: Program | None = None
    """None for those that share their turns, as users can make any number of them (agent/clients/peer.py)."""
    pid: int = 0


NOBODY = Requester()
requester: ContextVar[Requester] = ContextVar("requester", default=NOBODY)
"""Whose request the current task serves."""
