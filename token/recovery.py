"""The one recovery mechanism: kill the worker, start a fresh one, try once more.

Whatever went wrong (a pulled token, a dead session, a hung or crashed module, pcscd restarted), a fresh
process recovers it, or nothing does. So nothing else is tried, and no state is repaired.
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

    The worker is the first one, or with `anywhere` any that is free. With `fresh` its process is replaced
    before the first attempt. A failure is a WorkerLostError or WorkerRefusedError that `operation` lets pass;
    when the second attempt fails as well, TokenAbsentError or ModuleUnreachableError is raised. Any other
    exception is an answer and is raised as it is. A caller that is cancelled while it waits for a worker
    leaves the queue; an operation that has begun is finished.
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
