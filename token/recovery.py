"""The one recovery mechanism: kill the worker, start a fresh one, try once more.

Whatever went wrong (a pulled token, a dead session, a hung or crashed module, pcscd restarted), a fresh
process heals it or nothing does. So there is no ladder of repairs, and no state to repair.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

from replug.token.errors import (
    ModuleUnreachableError,
    TokenAbsentError,
    Verdict,
    WorkerLostError,
    WorkerRefusedError,
)
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
    anywhere: bool = False,
) -> T:
    """Take a worker of `pool`, run `operation` on it, give it back; if that fails, once more on a fresh one.

    It is the first worker, or with `anywhere` any that is free. With `fresh` it is a new one from the start.
    Raises TokenAbsentError or ModuleUnreachableError when the second attempt fails as well; what
    `operation` itself raises is an answer and passes. A caller that is cancelled while it waits for a worker
    leaves the queue; what has begun goes on to its end.
    """
    taken = await pool.take(anywhere=anywhere)
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
        try:
            return await operation(await taken.live(), *arguments)
        except (WorkerLostError, WorkerRefusedError) as error:
            log.info("starting a fresh worker", extra={"path": pool.path, "why": str(error)})
            taken.discard()
        try:
            return await operation(await taken.live(), *arguments)
        except (WorkerLostError, WorkerRefusedError) as error:
            taken.discard()
            if isinstance(error, WorkerRefusedError) and error.verdict is Verdict.TOKEN_ABSENT:
                raise TokenAbsentError(error.reason, "plug it in") from error
            raise ModuleUnreachableError(f"module {pool.path} failed twice: {error}") from error
    finally:
        pool.give(taken)
