"""Work that would hold up the event loop, in threads: a share of them for each purpose.

What hangs in one share is not in the way of the others.
"""

from __future__ import annotations

import _thread
import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import Any, TypeVar

from replug.token.errors import ExplainedError
from replug.token.requester import Requester, requester
from replug.token.turns import FairSemaphore

T = TypeVar("T")


class Share(Enum):
    """What a call that may never return is for: a path on a dead network file system, say.

    Any program of the user may mount a file system that never answers over any folder of the user's.
    """

    USUAL_MODULES = "modules that are registered, or in the allowed folders"
    OTHER_MODULES = "modules elsewhere"
    REMOVED_PATHS = "paths of providers to remove"
    CONFIGURATION = "configuration"
    CERTIFICATE_FILES = "certificate files"
    KNOWN_HOSTS = "known_hosts files"
    PIN_SOURCES = "PIN sources"
    SECURITY_KEYS = "helpers and libraries for security keys"
    ASKING_PROGRAMS = "asking programs"
    PROMPT_PROGRAMS = "prompt programs"
    PROMPT_FOLDER = "the folder of systemd's password agents"
    SESSION_BUS = "the session's message bus"
    SYSTEM_BUS = "the system's message bus"
    CARD_READERS = "pcscd's socket"
    CONTROL_SOCKET = "the control socket"
    VIEW_SOCKETS = "the sockets for some of the keys"
    LIBRARIES = "libraries"
    SEEN_BEFORE = "tokens seen before"
    DESTINATIONS = "keys that hosts accept"
    ISSUED = "the journal of certificates"
    USER_NAMES = "names of users"
    DIAGNOSIS = "diagnosis"


_MOST_HANGING = 64
"""Threads of one share."""
_MOST_OF_A_PROGRAM = 16
_MOST_OF_A_PROCESS = 8
_running: dict[Future[Any], tuple[Share, Requester]] = {}
"""What was called in a daemon thread and has not returned: of this process, so of whichever loop it has."""


class TooManyThreadsError(ExplainedError):
    """Too many earlier calls have not returned, or there can be no more threads."""


async def in_daemon_thread(
    share: Share, call: Callable[[], T], abandoned: Callable[[T], object] | None = None
) -> T:
    """What `call` returns or raises, run in a thread that keeps nobody waiting. TooManyThreadsError.

    asyncio's own threads are few, and the process waits for them at its end. If the caller is gone by then,
    `abandoned` gets the result, in a thread as well.
    """
    askers = [its for its_share, its in list(_running.values()) if its_share is share]
    asker = requester.get()
    if (
        len(askers) >= _MOST_HANGING
        or askers.count(asker) >= _MOST_OF_A_PROCESS
        or sum(other.program == asker.program for other in askers) >= _MOST_OF_A_PROGRAM
    ):
        raise TooManyThreadsError(f"too many earlier attempts have not ended ({share.value})")

    def started(call: Callable[[], Any]) -> Future[Any]:
        running = _started(call)
        _running[running] = share, asker
        running.add_done_callback(_running.pop)
        return running

    def left_behind(result: T) -> None:
        if abandoned is not None:
            started(partial(abandoned, result))

    return await _outcome(started(call), left_behind)


class Aside:
    """Computations beside the event loop, one after the other: short ones, of any client.

    A single thread takes no more than its share of Python's lock from the loop.
    """

    def __init__(self, most: int = 1) -> None:
        """At most `most` run at the same time; the others wait for their turn."""
        self._free = FairSemaphore(most)

    async def run(self, call: Callable[[], T], abandoned: Callable[[T], object] = lambda _: None) -> T:
        """What `call` returns or raises. TooManyThreadsError when there can be no thread.

        A call that was begun runs to its end and keeps its place until then, though the caller is gone:
        `abandoned` gets what it returns, then, in its thread. One that was not begun leaves the queue.
        """
        loop = asyncio.get_running_loop()
        await self._free.acquire()
        try:
            running = _started(call)
        except BaseException:
            self._free.release()
            raise

        def ended(_: object) -> None:
            with suppress(RuntimeError):  # the loop may have ended before
                loop.call_soon_threadsafe(self._free.release)

        running.add_done_callback(ended)
        return await _outcome(running, abandoned)


async def _outcome(running: Future[T], abandoned: Callable[[T], object]) -> T:
    """What it returns or raises; `abandoned` gets the result if the caller is gone when there is one."""

    def ended(its: Future[T]) -> None:
        if its.exception() is None:
            abandoned(its.result())

    try:
        return await asyncio.wrap_future(running)
    except asyncio.CancelledError:
        running.add_done_callback(ended)  # called at once if it has ended already
        raise


def _started(call: Callable[[], T]) -> Future[T]:
    """The result to come of a thread's `call`.

    Not threading.Thread: its start() waits until the thread runs, and then for Python's lock, which that has.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    future.set_running_or_notify_cancel()  # from here on the caller may leave, and the thread finishes alone
    try:
        _thread.start_new_thread(run, ())
    except RuntimeError as error:
        raise TooManyThreadsError(
            "there can be no more threads", "see the limits of the agent (ulimit -a)"
        ) from error
    return future
