"""Turns at what is scarce: nobody keeps others waiting for long."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from replug.token.requester import NOBODY, Program, Requester, requester

K = TypeVar("K")
T = TypeVar("T")


def one_less(counts: Counter[K], key: K) -> None:
    """Count down; nothing is kept of a key whose count is zero, as there may be any number of keys."""
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


def who_has_most(holdings: Mapping[Requester, int]) -> Requester:
    """Who gives something up first: the process that has most, of the program that has most; first come."""
    of_program: Counter[Program | None] = Counter()
    for asker, amount in holdings.items():
        of_program[asker.program] += amount
    [(program, _)] = of_program.most_common(1)
    return max((asker for asker in holdings if asker.program == program), key=holdings.__getitem__)


def who_makes_room(holdings: Mapping[Requester, int], newcomer: Requester) -> Requester | None:
    """Who has most, if that is more than the newcomer will have with one more; None if nobody has."""
    richest = who_has_most(holdings)
    of_program = [
        sum(amount for asker, amount in holdings.items() if asker.program == one.program)
        for one in (newcomer, richest)
    ]
    if of_program[0] + 1 < of_program[1]:
        return richest
    is_its_own = newcomer.program == richest.program
    return richest if is_its_own and holdings.get(newcomer, 0) + 1 < holdings[richest] else None


class FairQueue(Generic[T]):
    """What waits, for requesters: programs have turns, and so have the processes of each.

    The program that was served last comes last, also behind those that have begun to wait since.
    """

    def __init__(self) -> None:
        self.waiting: OrderedDict[Program | None, OrderedDict[int, deque[T]]] = OrderedDict()
        """By program and process id, those that are next first; only this class changes it."""
        self.served = NOBODY
        """Who had the last turn. Who has one without waiting is to be noted here."""

    def add(self, asker: Requester, item: T) -> None:
        """Let `item` wait behind what this process has waiting."""
        processes = self.waiting.get(asker.program)
        if processes is None:
            processes = self.waiting[asker.program] = OrderedDict()
        items = processes.get(asker.pid)
        if items is None:
            items = processes[asker.pid] = deque()
        items.append(item)

    def remove(self, asker: Requester, item: T) -> None:
        """Take out an item that was added and not taken."""
        processes = self.waiting[asker.program]
        processes[asker.pid].remove(item)
        if not processes[asker.pid]:
            self._forget(processes, asker.program, asker.pid)

    def clear(self) -> None:
        """Nobody waits any more."""
        self.waiting.clear()

    def take(self, suits: Callable[[T], bool] | None = None) -> T | None:
        """Take out the first item; the first that `suits`, if that is given."""
        if not self.waiting:
            return None
        last_program, last_process = self.served
        if last_program in self.waiting:
            self.waiting.move_to_end(last_program)
            if last_process in self.waiting[last_program]:
                self.waiting[last_program].move_to_end(last_process)
        for program, processes in self.waiting.items():
            for pid, items in processes.items():
                if suits is None:
                    chosen: T | None = items.popleft()
                else:
                    chosen = next((item for item in items if suits(item)), None)
                    if chosen is None:
                        continue
                    items.remove(chosen)
                self.served = Requester(program, pid)
                if not items:
                    self._forget(processes, program, pid)
                return chosen
        return None

    def _forget(self, processes: OrderedDict[int, deque[T]], program: Program | None, pid: int) -> None:
        del processes[pid]
        if not processes:
            del self.waiting[program]


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
        asker = requester.get()
        if self._free:  # then nobody waits
            self._free -= 1
            self._waiting.served = asker
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.add(asker, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove(asker, turn)
            else:  # its turn came at the same moment
                self.release()
            raise

    def release(self) -> None:
        """Give the turn to the next program that waits."""
        if not self.give_way():
            self._free += 1

    def give_way(self) -> bool:
        """Release if anybody waits; whether anybody did."""
        turn = self._waiting.take(_waits)
        if turn is None:
            return False
        turn.set_result(None)
        return True


def _waits(turn: asyncio.Future[None]) -> bool:
    """Whether its task has not been cancelled."""
    return not turn.done()
