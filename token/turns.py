"""On whose behalf something is done, and turns at what is scarce: nobody keeps others waiting for long."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

K = TypeVar("K")

_Program = tuple[int, int] | None


@dataclass(frozen=True)
class Requester:
    """The process that a request came from, and its program; the agent itself has neither."""

    program: _Program = None
    """The executable, by device and inode; None if unknown."""
    pid: int = 0


NOBODY = Requester()
requester: ContextVar[Requester] = ContextVar("requester", default=NOBODY)
"""Whose request the current task serves."""


def one_less(counts: Counter[K], key: K) -> None:
    """Count down; nothing is kept of a key whose count is zero, as there may be any number of keys."""
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


class FairSemaphore:
    """Like asyncio.Semaphore, but programs have turns, and so have the processes of each."""

    def __init__(self, most: int) -> None:
        """At most `most` hold it at the same time."""
        self._free = most
        self._waiting: OrderedDict[_Program, OrderedDict[int, deque[asyncio.Future[None]]]] = OrderedDict()
        """By program and process id, those that are next first."""

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()

    async def acquire(self) -> None:
        """Wait for a turn, and have it until `release`."""
        if self._free and not self._waiting:
            self._free -= 1
            return
        asker = requester.get()
        turn = asyncio.get_running_loop().create_future()
        processes = self._waiting.setdefault(asker.program, OrderedDict())
        processes.setdefault(asker.pid, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # its turn came at the same moment
                self.release()
            raise

    def release(self) -> None:
        """Give the turn to the next program that waits."""
        while self._waiting:
            turn = self._next()
            if not turn.done():  # else it was cancelled
                turn.set_result(None)
                return
        self._free += 1

    def _next(self) -> asyncio.Future[None]:
        """Take the first out; its program and its process are the last now."""
        program, processes = self._waiting.popitem(last=False)
        pid, turns = processes.popitem(last=False)
        turn = turns.popleft()
        if turns:
            processes[pid] = turns
        if processes:
            self._waiting[program] = processes
        return turn
