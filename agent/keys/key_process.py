"""A process that has software keys, and gets each when it is first needed.

It ends when a key that it has is removed, and with it every trace of that key; the next one has no keys yet,
so that a removal costs the others nothing but the start of a process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from replug.agent.keys.refusal import RequestRefusedError
from replug.protocol.additions import KeyAddition
from replug.protocol.secrets import wipe
from replug.token.errors import Verdict, WorkerLostError, WorkerRefusedError
from replug.token.seal import Seal, SealedError
from replug.token.turns import FairSemaphore
from replug.token.worker.deadlines import Patience
from replug.token.worker.forking import ForkServer
from replug.token.worker.frames import Header, Request
from replug.token.worker.process import WorkerProcess

T = TypeVar("T")

_PROGRAM = "replug.agent.keys.software_worker"
_DEADLINE = 30.0  # seconds for one operation
_SLOW_DEADLINE = 180.0  # to sign with the largest RSA key takes a minute on a slow board
_MOST_FAILURES = 2  # of one operation, each in a fresh process
_PARTING = 1.0  # seconds in which an operation for another key may end before the process does
_NICE = 10


class KeyProcess:
    """Does one thing after the other, with keys that `sealed` has by blob, each as `seal` sealed it.

    The process of `slow` keys lasts for one operation, and has what others leave of the processor.
    """

    def __init__(
        self, seal: Seal, sealed: Mapping[bytes, bytes], fork_server: ForkServer, *, slow: bool
    ) -> None:
        self._fork_server = fork_server
        self._seal = seal
        self._sealed = sealed
        self._slow = slow
        self._process: WorkerProcess | None = None
        self._has: set[bytes] = set()
        self._turn = FairSemaphore(1)
        self._busy_with: bytes | None = None
        self._ends = 0
        """How often a process was ended."""
        self._parting: asyncio.TimerHandle | None = None

    async def add(self, blob: bytes, message: bytearray) -> None:
        """Find out whether the halves of a key belong together: RequestRefusedError if not."""

        async def give(process: WorkerProcess) -> None:
            if not message:
                raise RequestRefusedError("the agent was locked meanwhile")
            await self._give(process, blob, message, is_new=not self._slow)

        await self._in_turn(blob, give)

    async def make(self) -> tuple[bytes, bytes]:
        """The blob of a new Ed25519 key, and its ADD_IDENTITY message, sealed. RequestRefusedError."""

        async def make(process: WorkerProcess) -> tuple[bytes, bytes]:
            message = await process.ask(Request("make", {}), self._patience, _content)
            try:
                return KeyAddition.decode(message).blob, self._seal.seal(message)
            finally:
                wipe(message)  # here, as the caller may be gone

        return await self._in_turn(b"", make)

    async def sign(self, blob: bytes, data: bytes, flags: int) -> bytes:
        """The signature blob over `data`; `flags` are the sign request's. RequestRefusedError."""

        async def sign(process: WorkerProcess) -> bytes:
            # It may have been removed while this waited for its turn.
            sealed = self._sealed.get(blob)
            if sealed is None:
                raise RequestRefusedError("the key was removed meanwhile")
            if blob not in self._has:
                message = self._seal.open(sealed)
                try:
                    await self._give(process, blob, message)
                finally:
                    wipe(message)
            signature = await process.ask(_sign_request(blob, flags), self._patience, _content, data)
            return bytes(signature)

        return await self._in_turn(blob, sign)

    def remove(self, blob: bytes) -> None:
        """End the process if it has the key; what it does with another key right now is done before."""
        if blob not in self._has and self._busy_with != blob:
            return
        if self._busy_with in (None, blob):
            self.end()
        elif self._parting is None:
            self._parting = asyncio.get_running_loop().call_later(_PARTING, self.end)

    def end(self) -> None:
        """End the process now. What it was doing is tried again as soon as the seal allows it."""
        self._ends += 1
        if self._parting is not None:
            self._parting.cancel()
            self._parting = None
        self._has.clear()
        if self._process is not None:
            self._process.kill()
            self._process = None

    @property
    def _patience(self) -> Patience:
        seconds = _SLOW_DEADLINE if self._slow else _DEADLINE
        return Patience(seconds, seconds)

    async def _in_turn(self, blob: bytes, operation: Callable[[WorkerProcess], Awaitable[T]]) -> T:
        async with self._turn:
            self._busy_with = blob
            # To break off would end the process, which is not only this client's. A slow key's is.
            attempt = self._attempt(operation)
            try:
                return await (attempt if self._slow else _to_its_end(attempt))
            finally:
                self._busy_with = None
                if self._slow or self._parting is not None:
                    self.end()

    async def _attempt(self, operation: Callable[[WorkerProcess], Awaitable[T]]) -> T:
        failures = 0
        while failures < _MOST_FAILURES:
            ends = self._ends
            try:
                return await operation(await self._live())
            except WorkerRefusedError as refused:
                if refused.verdict is Verdict.NOT_A_KEY:
                    raise RequestRefusedError(refused.reason) from refused
                lost: Exception = refused
            except WorkerLostError as error:
                lost = error
            except SealedError:
                self.end()
                raise RequestRefusedError("the agent is locked", "unlock it with ssh-add -X") from None
            except OSError as error:
                raise RequestRefusedError(
                    f"the process for software keys does not start: {error.strerror}",
                    "see the limits of the agent (ulimit -a)",
                ) from error
            # A process that ended because a key was removed, or the agent locked, has not failed.
            if ends == self._ends:
                failures += 1
                self.end()
        raise RequestRefusedError(f"the process for software keys failed twice: {lost}") from lost

    async def _live(self) -> WorkerProcess:
        process = self._process
        if process is None or not process.alive:
            self._has.clear()
            forked = await self._fork_server.fork(_PROGRAM, _DEADLINE)
            process = self._process = WorkerProcess(forked)
            if self._slow:
                with contextlib.suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
        return process

    async def _give(
        self, process: WorkerProcess, blob: bytes, message: bytearray, *, is_new: bool = False
    ) -> None:
        had = blob in self._has
        self._has.add(blob)  # from its first byte on
        try:
            header = {"key": blob.hex(), "new": is_new}
            await process.ask(Request("add", header), self._patience, _content, message)
        except WorkerRefusedError:
            if not had:
                self._has.discard(blob)
            raise


@lru_cache(maxsize=64)
def _sign_request(blob: bytes, flags: int) -> Request:
    return Request("sign", {"key": blob.hex(), "flags": flags})


async def _to_its_end(attempt: Coroutine[Any, Any, T]) -> T:
    """What `attempt` returns; it goes on to its end though the client is gone."""
    task = asyncio.create_task(attempt)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        task.cancelled() or task.exception()
        raise


def _content(_: Header, content: bytearray) -> bytearray:
    return content
