"""Calls that do not come back."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from functools import partial

import pytest
from doubles.stand_ins import run

from replug.token import offload
from replug.token.offload import Aside, Share, TooManyThreadsError, in_daemon_thread


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
        released.set()
        while offload._running:  # noqa: ASYNC110 - threads end without the loop
            await asyncio.sleep(0.001)
        assert await in_daemon_thread(Share.CONFIGURATION, lambda: 7) == 7

    run(main())


def test_a_process_with_calls_that_hang_ends() -> None:
    hang = """
import asyncio, threading
from replug.token.offload import Share, in_daemon_thread
async def main():
    await asyncio.wait_for(in_daemon_thread(Share.CONFIGURATION, threading.Event().wait), 0.1)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", hang], timeout=20, capture_output=True, text=True)
    assert done.stderr.endswith("TimeoutError\n")


def test_to_start_a_thread_does_not_wait_for_what_it_computes() -> None:
    """The loop would stand still meanwhile: for as long as threads keep Python's lock."""

    def compute() -> None:
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass

    async def main() -> None:
        for aside in (Aside().run, partial(in_daemon_thread, Share.CONFIGURATION)):
            begun = time.monotonic()
            computing = asyncio.ensure_future(aside(compute))
            await asyncio.sleep(0)
            assert time.monotonic() - begun < 0.04
            await computing

    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.05)
    try:
        run(main())
    finally:
        sys.setswitchinterval(interval)
