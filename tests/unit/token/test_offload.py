"""Calls that do not come back."""

from __future__ import annotations

import asyncio
import threading

import pytest
from doubles.stand_ins import run

from replug.token import offload
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread


def test_what_the_call_returns_or_raises() -> None:
    async def main() -> None:
        assert await in_daemon_thread(Share.CONFIGURATION, lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await in_daemon_thread(Share.CONFIGURATION, lambda: 1 // 0)

    run(main())


def test_calls_that_hang_are_left_behind_and_limited() -> None:
    async def main() -> None:
        released = threading.Event()
        for _ in range(offload._MOST_OF_A_PROCESS):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(in_daemon_thread(Share.CONFIGURATION, released.wait), 0.01)
        with pytest.raises(TooManyThreadsError):
            await in_daemon_thread(Share.CONFIGURATION, lambda: 7)
        hanging = [thread for thread in threading.enumerate() if thread.name == Share.CONFIGURATION.value]
        assert [thread.daemon for thread in hanging] == [True] * offload._MOST_OF_A_PROCESS
        released.set()
        for thread in hanging:
            await asyncio.to_thread(thread.join)
        assert await in_daemon_thread(Share.CONFIGURATION, lambda: 7) == 7

    run(main())
