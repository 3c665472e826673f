"""Work that would hold up the event loop, in threads: a share of them for each purpose.

What hangs in one share is not in the way of the others.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from enum import Enum
from typing import TypeVar

from replug.token.errors import ExplainedError

T = TypeVar("T")


class Share(Enum):
    """What a call that may never return is for: a path on a dead network file system, say."""

    ADDED_PATHS = "paths of providers to add"
    REMOVED_PATHS = "paths of providers to remove"
    CONFIGURATION = "configuration"
    CERTIFICATE_FILES = "certificate files"
    KNOWN_HOSTS = "known_hosts files"
    PIN_SOURCES = "PIN sources"
    ASKING_PROGRAMS = "asking programs"
    PROMPT_PROGRAMS = "prompt programs"
    SEEN_BEFORE = "tokens seen before"


_MOST_HANGING = 8
"""Threads of one share."""


class TooManyThreadsError(ExplainedError):
    """Too many earlier calls have not returned, or there can be no more threads."""


async def in_daemon_thread(share: Share, call: Callable[[], T]) -> T:
    """What `call` returns or raises, run in a thread that keeps nobody waiting. TooManyThreadsError.

    asyncio's own threads are few, and the process waits for them at its end.
    """
    if sum(thread.name == share.value for thread in threading.enumerate()) >= _MOST_HANGING:
        raise TooManyThreadsError(f"{_MOST_HANGING} earlier attempts have not ended ({share.value})")
    return await asyncio.wrap_future(_started(share.value, call))


class Aside:
    """Computations beside the event loop, one after the other: short ones, of any client.

    A single thread takes no more than its share of Python's lock from the loop.
    """

    def __init__(self, name: str, most: int = 1) -> None:
        """At most `most` run at the same time; the others wait for their turn."""
        self._name = name
        self._free = asyncio.Semaphore(most)

    async def run(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises. TooManyThreadsError when there can be no thread.

        A call that was begun runs to its end and keeps its place until then, though the caller is gone.
        """
        loop = asyncio.get_running_loop()
        await self._free.acquire()
        try:
            running = _started(self._name, call)
        except BaseException:
            self._free.release()
            raise

        def ended(_: object) -> None:
            with suppress(RuntimeError):  # the loop may have ended before
                loop.call_soon_threadsafe(self._free.release)

        running.add_done_callback(ended)
        return await asyncio.wrap_future(running)


def _started(name: str, call: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    future.set_running_or_notify_cancel()  # from here on the caller may leave, and the thread finishes alone
    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:
        raise TooManyThreadsError(
            "there can be no more threads", "see the limits of the agent (ulimit -a)"
        ) from error
    return future
