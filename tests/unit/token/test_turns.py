"""Turns at what is scarce: programs, and the processes of each, one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest
from doubles.stand_ins import run, settle

from replug.token import offload
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread
from replug.token.requester import Requester, requester
from replug.token.turns import FairSemaphore, who_makes_room

ONE, OTHER = (1, "one"), (1, "other")


def served(requests: list[Requester], *, cancelled: int | None = None) -> list[int]:
    """The requests by number, in the order in which they have their turn."""
    order: list[int] = []

    async def main() -> None:
        turns = FairSemaphore(1)
        await turns.acquire()

        async def ask(number: int) -> None:
            requester.set(requests[number])
            async with turns:
                order.append(number)

        tasks = [asyncio.create_task(ask(number)) for number in range(len(requests))]
        await settle()
        if cancelled is not None:
            tasks[cancelled].cancel()
            await settle()
        turns.release()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        async with turns:  # nothing was lost
            pass

    run(main())
    return order


def test_programs_have_turns() -> None:
    many, few = Requester(ONE, 10), Requester(OTHER, 20)
    assert served([many, many, many, many, few, few]) == [0, 4, 1, 5, 2, 3]


def test_processes_of_a_program_have_turns() -> None:
    many, few = Requester(ONE, 10), Requester(ONE, 20)
    assert served([many, many, many, few]) == [0, 3, 1, 2]


def test_many_processes_of_one_program_are_one_program() -> None:
    crowd = [Requester(ONE, pid) for pid in range(10, 15)]
    assert served([*crowd, Requester(OTHER, 1)]) == [0, 5, 1, 2, 3, 4]


def test_who_is_gone_has_no_turn() -> None:
    one, other = Requester(ONE, 1), Requester(OTHER, 1)
    assert sorted(served([one, one, other], cancelled=0)) == [1, 2]


def test_the_program_that_had_the_turn_is_the_last() -> None:
    """Also behind one that has begun to wait after it had asked again."""

    async def main() -> None:
        turns, order = FairSemaphore(1), []

        async def ask(asker: Requester) -> None:
            requester.set(asker)
            async with turns:
                order.append(asker.pid)
                await settle()

        many, few = Requester(ONE, 1), Requester(OTHER, 2)
        async with asyncio.TaskGroup() as tasks:
            for asker in (many, many, many, few):
                tasks.create_task(ask(asker))
        assert order == [1, 2, 1, 1]

    run(main())


def test_one_who_leaves_is_in_nobodys_way() -> None:
    """Not even at the moment when the last one that waits is gone, and the turn is free."""

    async def main() -> None:
        turns = FairSemaphore(1)
        await turns.acquire()
        leaving = asyncio.create_task(turns.acquire())
        await settle()
        leaving.cancel()
        turns.release()
        await turns.acquire()
        turns.release()

    run(main())


def test_what_one_program_hangs_in_leaves_room_for_others() -> None:
    async def main() -> None:
        released = threading.Event()
        for number in range(offload._MOST_OF_A_PROGRAM + 1):
            requester.set(Requester(ONE, number))
            with pytest.raises((TimeoutError, TooManyThreadsError)) as caught:
                await asyncio.wait_for(in_daemon_thread(Share.OTHER_MODULES, released.wait), 0.01)
        assert caught.type is TooManyThreadsError
        requester.set(Requester(OTHER, 1))
        assert await in_daemon_thread(Share.OTHER_MODULES, lambda: 7) == 7
        released.set()

    run(main())


MUCH, LITTLE, NEW = (0, "/usr/bin/much"), (0, "/usr/bin/little"), (0, "/usr/bin/new")


@pytest.mark.parametrize(
    ("newcomer", "leaves"),
    [
        (Requester(NEW, 9), Requester(MUCH, 1)),
        (Requester(LITTLE, 9), Requester(MUCH, 1)),
        (Requester(MUCH, 9), Requester(MUCH, 1)),
        (Requester(MUCH, 2), None),
        (Requester(MUCH, 1), None),
    ],
)
def test_who_has_most_makes_room_for_who_has_less(newcomer: Requester, leaves: Requester | None) -> None:
    holdings = {Requester(LITTLE, 4): 2, Requester(MUCH, 1): 3, Requester(MUCH, 2): 2}
    assert who_makes_room(holdings, newcomer) == leaves


def test_nobody_makes_room_for_who_would_have_as_much() -> None:
    holdings = {Requester(MUCH, 1): 1, Requester(LITTLE, 2): 1}
    assert who_makes_room(holdings, Requester(NEW, 3)) is None
