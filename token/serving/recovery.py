"""The one recovery mechanism: kill the worker, start a fresh one, try once more.

Whatever went wrong (a pulled token, a dead session, a hung or crashed module, pcscd restarted), a fresh
process recovers it, or nothing does. So nothing else is tried, and no state is repaired. While nothing does
(a server is down), that is known: each request then tries one process, to find out whether it is up again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
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
from replug.token.serving.presence import Presence
from replug.token.serving.shared import result_of
from replug.token.worker.client import WorkerClient
from replug.token.worker.pool import Outage, WorkerPool
from replug.token.worker.restarting import RestartingWorker

log = logging.getLogger(__name__)

_PAUSE = 0.3
"""Seconds after a fresh worker has failed: one that is started at once is bound to fail like it."""

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


async def attempt(
    pool: WorkerPool,
    operation: Callable[[WorkerClient, *Arguments], Awaitable[T]],
    *arguments: *Arguments,
    token: Presence | None = None,
    fresh: bool = False,
    logged_out: bool = False,
    anywhere: bool = False,
) -> T:
    """Take a worker of `pool`, run `operation` on it, give it back; if that fails, once more on a fresh one.

    The worker is the first one, or with `anywhere` any that is free. With `fresh` its process is replaced
    before the first attempt, with `logged_out` if it is logged in to `token`, which is told of failures. A
    failure is a WorkerLostError or WorkerRefusedError that `operation` lets pass; after a second one,
    TokenAbsentError or ModuleUnreachableError is raised. An error after silence is followed by a third
    attempt. While the module is known to be unreachable the first failure is final, and a caller that was
    waiting while another's attempt failed is refused like it. A login that another program ended is made
    again, once, which is no failure. Any other exception is an answer and is raised as it is. A caller that
    is cancelled while it waits for a worker leaves the queue; an operation that has begun is finished.
    """
    asked = asyncio.get_running_loop().time()
    taken = await pool.take(anywhere=anywhere)
    try:
        if pool.outage is not None and pool.outage.tried_at > asked:
            pool.give(taken)
            raise pool.outage.error()
        if fresh or (logged_out and token is not None and token.identity in taken.logged_in):
            taken.discard()
        taken.task = asyncio.create_task(_use(taken, pool, token, operation, arguments))
        taken.task.add_done_callback(lambda _: pool.give(taken))
        return await result_of(taken.task)
    except TokenError as error:
        if token is not None:
            token.failed(error)
        raise


async def _use(
    taken: RestartingWorker,
    pool: WorkerPool,
    token: Presence | None,
    operation: Callable[[WorkerClient, *Arguments], Awaitable[T]],
    arguments: tuple[*Arguments],
) -> T:
    outage, repaired = pool.outage, dict[_Fault, Exception]()
    patient = outage is not None and outage.silent
    while True:
        began = asyncio.get_running_loop().time()
        await pool.turn_at_cards()
        try:
            # What ended a worker may have ended the spare as well.
            worker = await taken.live(patient=patient, spare=not repaired)
            result = await operation(worker, *arguments)
        except (WorkerLostError, WorkerRefusedError) as error:
            taken.kill()
            fault = _fault(error)
            if not fault.may_follow(repaired) or (outage is not None and fault in _OF_THE_MODULE):
                earlier = [repaired[one] for one in repaired if one in (fault, *_OF_THE_MODULE)]
                final = _final(pool, token, earlier, error)
                pool.outage = None
                if isinstance(final, ModuleUnreachableError):
                    silent = fault is _Fault.SILENCE
                    pool.outage = Outage(final.reason, final.next_step, began, silent)
                raise final from error
            repaired[fault], patient = error, patient or fault is _Fault.SILENCE
            log.info("starting a fresh worker", extra={"path": pool.path, "why": str(error)})
        except ModuleUnreachableError:  # no process could be started
            raise
        except Exception:
            pool.outage = None  # an answer is one, whatever it is
            raise
        else:
            pool.outage = None
            return result
        if taken.is_fresh:
            await asyncio.sleep(_PAUSE)


class _Fault(Enum):
    """What is repaired by a fresh worker, each once."""

    LOGIN = auto()
    """A login was lost, which is no fault of the module."""
    SILENCE = auto()
    """There was no answer in time. If pcscd was what hung, then only when it goes on does it notice the end
    of that worker, and resets the card, with which the next one may be at work by then."""
    WORKER = auto()

    def may_follow(self, repaired: Collection[_Fault]) -> bool:
        """Whether this is worth another attempt after those that are `repaired`."""
        return self not in repaired and not (self is _Fault.SILENCE and _Fault.WORKER in repaired)


_OF_THE_MODULE = (_Fault.SILENCE, _Fault.WORKER)


def _fault(error: Exception) -> _Fault:
    if isinstance(error, WorkerSilentError):
        return _Fault.SILENCE
    lost_login = isinstance(error, WorkerRefusedError) and error.verdict is Verdict.NOT_LOGGED_IN
    return _Fault.LOGIN if lost_login else _Fault.WORKER


def _final(
    pool: WorkerPool, token: Presence | None, earlier: Sequence[Exception], error: Exception
) -> TokenError:
    """What is raised in the end; without `earlier` errors the module was known to be unreachable."""
    if isinstance(error, WorkerRefusedError) and error.verdict is Verdict.TOKEN_ABSENT:
        return TokenAbsentError(error.reason, "" if token is None else token.how_to_bring_back)
    # The first error is the cause; what a module says afterwards may be a consequence.
    cause = (*earlier, error)[0]
    text = f"{cause}" if str(error) == str(cause) else f"{cause}, then {error}"
    next_step = cause.next_step if isinstance(cause, WorkerRefusedError) else ""
    how = {0: "fails again", 1: "failed twice"}.get(len(earlier), f"failed {len(earlier) + 1} times")
    return ModuleUnreachableError(f"module {pool.path} {how}: {text}", next_step)
