"""Calls for later: each at its time, once, or not at all."""

from __future__ import annotations

import asyncio

from doubles.stand_ins import run

from replug.agent.desktop.alarms import Alarms


def test_each_is_called_once_in_the_order_of_their_times() -> None:
    async def main() -> None:
        alarms, called = Alarms(), list[str]()
        alarms.set(lambda: called.append("late"), 0.1)
        alarms.set(lambda: called.append("soon"), 0.02)
        await asyncio.sleep(0.05)
        assert called == ["soon"]
        await asyncio.sleep(0.2)
        assert called == ["soon", "late"]

    run(main())


def test_one_that_was_unset_is_not_called_and_the_others_are() -> None:
    async def main() -> None:
        alarms, called = Alarms(), list[str]()

        def unwanted() -> None:
            called.append("unwanted")

        alarms.set(unwanted, 0.01)
        alarms.set(lambda: called.append("wanted"), 0.03)
        alarms.unset(unwanted)
        await asyncio.sleep(0.1)
        alarms.unset(unwanted)
        assert called == ["wanted"]
        alarms.set(unwanted, 0.01)
        await asyncio.sleep(0.05)
        assert called == ["wanted", "unwanted"]

    run(main())


def test_a_call_may_set_itself_again() -> None:
    async def main() -> None:
        alarms, called = Alarms(), list[int]()

        def again() -> None:
            called.append(len(called))
            if len(called) < 3:
                alarms.set(again, 0.01)

        alarms.set(again, 0.01)
        await asyncio.sleep(0.2)
        assert called == [0, 1, 2]

    run(main())
