"""One attempt for all who wait for it: when it is made, when it ends, and for whom."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest
from doubles.stand_ins import run, settle

from replug.token.serving.shared import SharedAttempt, StoppedError, result_of


class Attempts:
    """Makes attempts that wait for `proceed`, in their stoppable part or after it, and then end as told."""

    def __init__(self, *, stoppable: bool = True) -> None:
        self.shared = SharedAttempt()
        self.proceed = asyncio.Event()
        self.failure: Exception | None = None
        self.begun = 0
        self.ended = 0
        self._stoppable = stoppable

    async def _attempt(self) -> None:
        self.begun += 1
        if self._stoppable:
            with self.shared.stoppable():
                await self.proceed.wait()
        else:
            await self.proceed.wait()
        self.ended += 1
        if self.failure is not None:
            raise self.failure

    def join(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.shared.join(self._attempt))


def test_who_comes_while_it_is_under_way_shares_it() -> None:
    async def main() -> None:
        attempts = Attempts()
        first = attempts.join()
        await settle()
        others = [attempts.join() for _ in range(3)]
        await settle()
        attempts.proceed.set()
        await asyncio.gather(first, *others)
        assert (attempts.begun, attempts.ended) == (1, 1)
        # Who comes later has another.
        await attempts.join()
        assert (attempts.begun, attempts.ended) == (2, 2)

    run(main())


def test_its_failure_is_that_of_all_and_of_no_one_after_them() -> None:
    async def main() -> None:
        attempts = Attempts()
        attempts.failure = LookupError("cancelled")
        waiting = [attempts.join() for _ in range(3)]
        await settle()
        attempts.proceed.set()
        assert await asyncio.gather(*waiting, return_exceptions=True) == [attempts.failure] * 3
        attempts.failure = None
        await attempts.join()

    run(main())


def test_who_leaves_does_not_end_it_for_the_others() -> None:
    async def main() -> None:
        attempts = Attempts()
        first, second = attempts.join(), attempts.join()
        await settle()
        first.cancel()
        await settle()
        attempts.proceed.set()
        await second
        assert first.cancelled()
        assert attempts.ended == 1

    run(main())


@pytest.mark.parametrize(("stoppable", "ends"), [(True, 0), (False, 1)])
def test_when_nobody_waits_any_more_it_is_stopped_where_that_does_no_harm(
    stoppable: bool, ends: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        attempts = Attempts(stoppable=stoppable)
        attempts.failure = LookupError("nobody hears of it")
        waiting = attempts.join()
        await settle()
        waiting.cancel()
        await settle()
        attempts.proceed.set()
        await settle()
        assert attempts.ended == ends

    with caplog.at_level(logging.ERROR, logger="asyncio"):
        run(main())
    assert caplog.records == []


@pytest.mark.parametrize("stoppable", [True, False])
def test_stopping_from_outside(stoppable: bool) -> None:
    async def main() -> None:
        attempts = Attempts(stoppable=stoppable)
        attempts.shared.stop()
        waiting = [attempts.join() for _ in range(2)]
        await settle()
        attempts.shared.stop()
        await settle()
        attempts.proceed.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [isinstance(result, StoppedError) for result in results] == [stoppable] * 2
        # The next one is not stopped.
        await attempts.join()

    run(main())


def test_one_that_all_have_left_does_not_begin_what_could_be_stopped() -> None:
    """A person shall not be asked on behalf of nobody."""

    async def main() -> None:
        shared, asked, before = SharedAttempt(), False, asyncio.Event()

        async def attempt() -> None:
            nonlocal asked
            await before.wait()
            with shared.stoppable():
                await asyncio.sleep(0)
                asked = True

        waiting = asyncio.create_task(shared.join(attempt))
        await settle()
        waiting.cancel()
        await settle()
        before.set()
        await settle()
        assert not asked

    run(main())


def test_what_has_begun_goes_on_without_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        proceed, ended = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            await proceed.wait()
            ended.set()
            raise ValueError("no caller hears this")

        task = asyncio.create_task(work())
        caller = asyncio.create_task(result_of(task))
        await settle()
        caller.cancel()
        await settle()
        assert caller.cancelled()
        proceed.set()
        await ended.wait()
        await settle()
        del task
        gc.collect()

    run(main())
    assert caplog.records == []


def test_a_result_and_an_error_reach_the_caller() -> None:
    async def main() -> None:
        assert await result_of(asyncio.create_task(asyncio.sleep(0, "result"))) == "result"

        async def fail() -> None:
            raise ValueError("error")

        with pytest.raises(ValueError, match="error"):
            await result_of(asyncio.create_task(fail()))

    run(main())
