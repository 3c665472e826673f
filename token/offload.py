"""Runs calls that may never return, such as those on a path of a dead network file system."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

_NAME = "offloaded"
_MOST_THREADS = 8


class TooManyThreadsError(Exception):
    """The call was not made, because too many earlier ones have not returned."""


async def in_daemon_thread(call: Callable[[], T]) -> T:
    """Run `call` in a daemon thread; returns or raises what it does.

    Not in asyncio's own threads: they are few, and the process waits for them at exit.
    """
    if sum(thread.name == _NAME for thread in threading.enumerate()) >= _MOST_THREADS:
        raise TooManyThreadsError
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    future.set_running_or_notify_cancel()  # from here on the caller may be cancelled; the thread goes on
    threading.Thread(target=run, name=_NAME, daemon=True).start()
    return await asyncio.wrap_future(future)
