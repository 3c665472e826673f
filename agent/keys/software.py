"""Software keys: the private keys that clients gave the agent (`ssh-add FILE`, AddKeysToAgent).

A process of their own (`software_worker.py`) computes with them. It is disposable, as a token's worker is:
it ends when the agent is locked and when a key is removed, and with it every trace of the keys. The copy of
a key that the agent keeps to start another process is sealed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from replug.agent.keys.refusal import RequestRefusedError
from replug.protocol.constraints import Constraint, parse_constraints
from replug.protocol.secrets import wipe
from replug.protocol.wire import Reader
from replug.token.errors import Verdict, WorkerLostError, WorkerRefusedError
from replug.token.seal import Seal, SealedError
from replug.token.shared import result_of
from replug.token.worker.forking import ForkServer
from replug.token.worker.process import WorkerProcess

T = TypeVar("T")

_DEADLINE = 30.0  # seconds for one operation; to sign with a large RSA key takes some on a slow board
_MOST_FAILURES = 2  # of one operation, each in a fresh process
_PROGRAM = "replug.agent.keys.software_worker"


@dataclass(frozen=True)
class AddedKey:
    """The public part of a key that was added."""

    blob: bytes
    """The public key or the certificate, as it is listed."""
    comment: bytes
    constraints: tuple[Constraint, ...]


class SoftwareKeys:
    """All software keys, by blob; `seal` keeps what is needed to start the process again."""

    def __init__(self, seal: Seal, fork_server: ForkServer) -> None:
        self._seal = seal
        self._fork_server = fork_server
        self._sealed: dict[bytes, bytes] = {}
        """Each key's ADD_IDENTITY message."""
        self._process: WorkerProcess | None = None
        self._suspensions = 0
        self._turn = asyncio.Lock()

    async def add(self, message: bytearray) -> AddedKey:
        """Hold the key of an ADD_IDENTITY message; the caller wipes that. RequestRefusedError."""
        try:
            added = await self._attempt(lambda process: _add(process, message))
            self._sealed[added.blob] = self._seal.seal(message)
        except SealedError:
            self.suspend()
            raise RequestRefusedError("the agent was locked meanwhile") from None
        finally:
            if not self._sealed:
                self.suspend()
        return added

    async def sign(self, blob: bytes, data: bytes, flags: int) -> bytes:
        """The signature blob over `data`; `flags` are the sign request's. RequestRefusedError."""
        header = {"key": blob.hex(), "flags": flags}

        async def sign(process: WorkerProcess) -> bytes:
            signing = asyncio.create_task(process.call("sign", header, _DEADLINE, data))
            try:
                _, signature = await result_of(signing)
            except asyncio.CancelledError:
                # The client is gone; to break off would end the process, which has everybody's keys.
                await asyncio.wait([signing])
                raise
            return bytes(signature)

        return await self._attempt(sign, needed=blob)

    def remove(self, blob: bytes) -> None:
        """Drop a key, if it is there; the others are given to a fresh process when they are needed."""
        if self._sealed.pop(blob, None) is not None:
            self.suspend()

    def keep_only(self, blobs: Iterable[bytes]) -> None:
        """Drop all keys but these."""
        for blob in self._sealed.keys() - set(blobs):
            self.remove(blob)

    def clear(self) -> None:
        """Drop all keys."""
        self._sealed.clear()
        self.suspend()

    def suspend(self) -> None:
        """End the process. What it was doing is tried again as soon as the seal allows it."""
        self._suspensions += 1
        if self._process is not None:
            self._process.kill()
            self._process = None

    async def _attempt(
        self, operation: Callable[[WorkerProcess], Awaitable[T]], *, needed: bytes | None = None
    ) -> T:
        async with self._turn:
            failures = 0
            while failures < _MOST_FAILURES:
                suspensions = self._suspensions
                try:
                    process = await self._live_process()
                    # It may have been removed while this waited for its turn.
                    if needed is not None and needed not in self._sealed:
                        raise RequestRefusedError("the key was removed meanwhile")
                    return await operation(process)
                except WorkerRefusedError as refused:
                    if refused.verdict is Verdict.NOT_A_KEY:
                        raise RequestRefusedError(refused.reason) from refused
                    lost: Exception = refused
                except WorkerLostError as error:
                    lost = error
                except SealedError:
                    # The process has none of the keys, or not all.
                    self.suspend()
                    raise RequestRefusedError("the agent is locked", "unlock it with ssh-add -X") from None
                except OSError as error:
                    raise RequestRefusedError(
                        f"the process for software keys does not start: {error.strerror}",
                        "see the limits of the agent (ulimit -a)",
                    ) from error
                # A process that ended because keys were removed has not failed. No key is added in this
                # turn, so that comes to an end.
                if suspensions == self._suspensions:
                    failures += 1
                    self.suspend()
        raise RequestRefusedError(f"the process for software keys failed twice: {lost}") from lost

    async def _live_process(self) -> WorkerProcess:
        process = self._process
        if process is None or not process.alive:
            forked = await self._fork_server.fork(_PROGRAM, _DEADLINE)
            process = self._process = WorkerProcess(forked)
            for sealed in list(self._sealed.values()):
                message = self._seal.open(sealed)
                try:
                    await _add(process, message)
                finally:
                    wipe(message)
        # Not `_process`: that is None if the process was ended meanwhile.
        return process


async def _add(process: WorkerProcess, message: bytearray) -> AddedKey:
    return await process.ask(
        "add",
        {},
        _DEADLINE,
        lambda reply, body: AddedKey(
            bytes.fromhex(reply["blob"]),
            bytes.fromhex(reply["comment"]),
            parse_constraints(Reader(body)),
        ),
        message,
    )
