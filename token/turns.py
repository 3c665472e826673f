"""On whose behalf something is done, and turns at what is scarce: nobody keeps others waiting for long."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

K = TypeVar("K")
T = TypeVar("T")

Program: TypeAlias = tuple[int, str]
"""A program, by the mount namespace and the path that it was started from."""


@dataclass(frozen=True)
class Requester:
    """The process that a request came from, and its program; the agent itself has neither."""

    program: Program | None = None
    """None if unknown."""
    pid: int = 0


NOBODY = Requester()
requester: ContextVar[Requester] = ContextVar("requester", default=NOBODY)
"""Whose request the current task serves."""


def one_less(counts: Counter[K], key: K) -> None:
    """Count down; nothing is kept of a key whose count is zero, as there may be any number of keys."""
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


class FairQueue(Generic[T]):
    """What waits, for requesters: programs have turns, and so have the processes of each.

    The program that was served last comes last, also behind those that have begun to wait since.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[Program | None, OrderedDict[int, deque[T]]] = OrderedDict()
        """By program and process id, those that are next first."""
        self.served = NOBODY
        """Who had the last turn; who has one without waiting is to be noted here."""

    def add(self, item: T) -> None:
        """Let `item` wait behind what this process has waiting."""
        asker = requester.get()
        processes = self._waiting.setdefault(asker.program, OrderedDict())
        processes.setdefault(asker.pid, deque()).append(item)

    def remove(self, item: T) -> None:
        """Take out an item that the same requester has added and that was not taken."""
        asker = requester.get()
        self._waiting[asker.program][asker.pid].remove(item)
        self._forget_if_empty(asker)

    def take(self, suits: Callable[[T], bool]) -> T | None:
        """Take out the first item that `suits`."""
        if not self._waiting:
            return None
        self._put_last(self.served)
        for program, processes in self._waiting.items():
            for pid, items in processes.items():
                chosen = next((item for item in items if suits(item)), None)
                if chosen is not None:
                    items.remove(chosen)
                    self.served = Requester(program, pid)
                    self._put_last(self.served)
                    self._forget_if_empty(self.served)
                    return chosen
        return None

    def _put_last(self, asker: Requester) -> None:
        processes = self._waiting.get(asker.program)
        if processes is not None:
            self._waiting.move_to_end(asker.program)
            if asker.pid in processes:
                processes.move_to_end(asker.pid)

    def _forget_if_empty(self, asker: Requester) -> None:
        processes = self._waiting[asker.program]
        if not processes[asker.pid]:
            del processes[asker.pid]
        if not processes:
            del self._waiting[asker.program]


class FairSemaphore:
    """Like asyncio.Semaphore, but fair as FairQueue is."""

    def __init__(self, most: int) -> None:
        """At most `most` hold it at the same time."""
        self._free = most
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()

    async def acquire(self) -> None:
        """Wait for a turn, and have it until `release`."""
        if self._free:  # then nobody waits
            self._free -= 1
            self._waiting.served = requester.get()
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.add(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove(turn)
            else:  # its turn came at the same moment
                self.release()
            raise

    def release(self) -> None:
        """Give the turn to the next program that waits."""
        turn = self._waiting.take(_waits)
        if turn is None:
            self._free += 1
        else:
            turn.set_result(None)


def _waits(turn: asyncio.Future[None]) -> bool:
    """Whether its task has not been cancelled."""
    return not turn.done()
