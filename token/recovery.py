"""The one recovery mechanism: kill the worker, start a fresh one, try once more.

Whatever went wrong (a pulled token, a dead session, a hung or crashed module, pcscd restarted), a fresh
process recovers it, or nothing does. So nothing else is tried, and no state is repaired.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import TypeVar, TypeVarTuple

from replug.token.errors import (
    ModuleUnreachableError,
    TokenAbsentError,
    TokenError,
    Verdict,
    WorkerLostError,
    WorkerRefusedError,
    WorkerSilentError,
)
from replug.token.identity import TokenId
from replug.token.shared import result_of
from replug.token.worker.client import WorkerClient
from replug.token.worker.pool import WorkerPool
from replug.token.worker.restarting import RestartingWorker

log = logging.getLogger(__name__)

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


async def attempt(
    pool: WorkerPool,
    operation: Callable[[WorkerClient, *Arguments], Awaitable[T]],
    *arguments: *Arguments,
    fresh: bool = False,
    logged_out: TokenId | None = None,
    anywhere: bool = False,
) -> T:
    """Take a worker of `pool`, run `operation` on it, give it back; if that fails, once more on a fresh one.

    The worker is the first one, or with `anywhere` any that is free. With `fresh` its process is replaced
    before the first attempt, with `logged_out` if it is logged in to that token. A failure is a
    WorkerLostError or WorkerRefusedError that `operation` lets pass; after a second one, TokenAbsentError or
    ModuleUnreachableError is raised. A login that another program ended is made again, once, which is no
    failure. Any other exception is an answer and is raised as it is. A caller that is cancelled while it
    waits for a worker leaves the queue; an operation that has begun is finished.
    """
    taken = await pool.take(anywhere=anywhere)
    fresh = fresh or (logged_out is not None and logged_out in taken.logged_in)
    taken.task = asyncio.create_task(_use(taken, pool, fresh, operation, arguments))
    return await result_of(taken.task)


async def _use(
    taken: RestartingWorker,
    pool: WorkerPool,
    fresh: bool,
    operation: Callable[[WorkerClient, *Arguments], Awaitable[T]],
    arguments: tuple[*Arguments],
) -> T:
    try:
        if fresh:
            taken.discard()
        repaired: dict[_Fault, Exception] = {}
        patient = False
        while True:
            try:
                return await operation(await taken.live(patient=patient), *arguments)
            except (WorkerLostError, WorkerRefusedError) as error:
                taken.kill()
                fault = _fault(error)
                if fault in repaired:
                    raise _final(pool, repaired[fault], error) from error
                repaired[fault] = error
                patient = isinstance(error, WorkerSilentError)
                log.info("starting a fresh worker", extra={"path": pool.path, "why": str(error)})
    finally:
        pool.give(taken)


class _Fault(Enum):
    """What is repaired by a fresh worker, each once: a login that was lost is no fault of the module."""

    LOGIN = auto()
    WORKER = auto()


def _fault(error: Exception) -> _Fault:
    lost_login = isinstance(error, WorkerRefusedError) and error.verdict is Verdict.NOT_LOGGED_IN
    return _Fault.LOGIN if lost_login else _Fault.WORKER


def _final(pool: WorkerPool, first: Exception, error: Exception) -> TokenError:
    if isinstance(error, WorkerRefusedError) and error.verdict is Verdict.TOKEN_ABSENT:
        return TokenAbsentError(error.reason)
    # The first error is the cause; what a module says afterwards may be a consequence.
    text = f"{first}" if str(error) == str(first) else f"{first}, then {error}"
    next_step = first.next_step if isinstance(first, WorkerRefusedError) else ""
    return ModuleUnreachableError(f"module {pool.path} failed twice: {text}", next_step)
