"""The agent's side of a worker process: start it, ask it, and kill it when it does not answer.

There is no way back from a missed deadline, a crash or a frame that makes no sense: the process is
killed and `WorkerLostError` raised. What to do then is decided in one place, `supervisor.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from replug.token.deadlines import Deadlines
from replug.token.errors import WorkerLostError, WorkerRefusedError
from replug.token.forking import Forked
from replug.token.frames import (
    PREFIX,
    FrameError,
    Header,
    Verdict,
    decode_header,
    decode_prefix,
    encode_prefix_and_header,
)
from replug.token.identity import TokenFlag, TokenIdentity, TokenInfo
from replug.token.pin import Pin

T = TypeVar("T")
Slots = list[tuple[int, bool]]
"""Slot numbers, each with CKF_TOKEN_PRESENT."""


@dataclass(frozen=True)
class Opened:
    """A token as a worker found it: flags just read, and a record for every key it shows."""

    flags: TokenFlag
    records: list[Header]


class Worker:
    """One live worker process. Not reentrant: the caller sends one request at a time."""

    def __init__(self, deadlines: Deadlines, forked: Forked | None = None) -> None:
        """Use the process that was `forked`, or start one; OSError when that is not possible."""
        self._deadlines = deadlines
        self._asking = False
        self.alive = True
        self.opened: set[TokenIdentity] = set()
        """The tokens with an open session."""
        self.ready: set[TokenIdentity] = set()
        """Those of them that are logged in, or need no login."""
        self._socket: socket.socket
        self._process: Forked | subprocess.Popen[bytes]
        if forked is None:
            self._start()
        else:
            self._socket, self._process, self._exit_notice = forked.connection, forked, forked.exit_notice
        asyncio.get_running_loop().add_reader(self._exit_notice, self._exited)

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", "replug.token.worker", str(os.getpid()), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # A module that prints would print into what a shell evaluates.
                stdout=subprocess.DEVNULL,
                cwd="/",
            )
        try:
            self._exit_notice = os.pidfd_open(self._process.pid)
        except OSError:
            self.kill()
            self._process.wait()
            raise

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    async def load(self, path: str) -> str:
        """Load the module at `path` (absolute); what the library calls itself (C_GetInfo)."""
        return await self._call("load", {"path": path}, lambda reply, _: str(reply["library"]))

    async def slots(self) -> Slots:
        """Every slot and whether a token is in it; costs no command to a card."""
        return await self._call(
            "slots", {}, lambda reply, _: [(int(slot), bool(present)) for slot, present in reply["slots"]]
        )

    async def scan(self) -> list[TokenInfo]:
        """All initialised tokens in the module's slots."""
        return await self._call(
            "scan", {}, lambda reply, _: [_token_info(token) for token in reply["tokens"]]
        )

    async def open(self, token: TokenIdentity) -> Opened:
        """Open a session on `token` unless it is open; its flags and keys are read afresh."""
        header = {"token": asdict(token)}
        opened = await self._call(
            "open", header, lambda reply, _: Opened(TokenFlag(reply["flags"]), list(reply["keys"]))
        )
        self.opened.add(token)
        return opened

    async def login(self, token: TokenIdentity, pin: Pin | None) -> list[Header]:
        """C_Login with `pin`, or at the token's keypad for None; the keys as they are seen after it."""
        header = {"token": asdict(token), "keypad": pin is None}
        deadline = self._deadlines.keypad if pin is None else self._deadlines.operation
        body = bytearray() if pin is None else pin.value
        records = await self._call("login", header, lambda reply, _: list(reply["keys"]), body, deadline)
        self.ready.add(token)
        return records

    async def sign(
        self, token: TokenIdentity, key: str, mechanism: str, data: bytes, pin: Pin | None, *, keypad: bool
    ) -> bytes:
        """The raw signature by CKM `mechanism`; PIN or keypad are for keys that want them at every use."""
        secret = bytearray() if pin is None else pin.value
        header = {"token": asdict(token), "key": key, "mechanism": mechanism, "pin_length": len(secret)}
        deadline = self._deadlines.touch + (self._deadlines.keypad if keypad else 0)
        body = secret + data
        try:
            return await self._call("sign", header, lambda _, signature: bytes(signature), body, deadline)
        finally:
            body[:] = bytes(len(body))

    def kill(self) -> None:
        """End the process now. It is reaped when the kernel says so; a hung driver may take its time."""
        if self.alive:
            self.alive = False
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            # Whoever waits for an answer wakes up. A descriptor the loop still watches must not be closed.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            if not self._asking:
                self._socket.close()

    def _exited(self) -> None:
        asyncio.get_running_loop().remove_reader(self._exit_notice)
        os.close(self._exit_notice)
        self._process.wait()
        self.kill()

    async def _call(
        self,
        operation: str,
        header: Header,
        read: Callable[[Header, bytearray], T],
        body: bytearray | None = None,
        deadline: float | None = None,
    ) -> T:
        if not self.alive:
            raise WorkerLostError("the worker process had ended")
        deadline = self._deadlines.operation if deadline is None else deadline
        answered = False
        self._asking = True
        try:
            async with asyncio.timeout(deadline):
                reply, content = await self._exchange(
                    {"operation": operation, **header}, bytearray() if body is None else body
                )
            if "verdict" in reply:
                refused = WorkerRefusedError(Verdict(reply["verdict"]), str(reply["detail"]))
                answered = True
                raise refused
            result = read(reply, content)
            answered = True
            return result
        except TimeoutError:
            raise WorkerLostError(f"no answer to {operation} within {deadline:g} s") from None
        except (EOFError, OSError) as error:
            raise WorkerLostError(f"the worker process ended during {operation}") from error
        except (FrameError, KeyError, TypeError, ValueError) as error:
            raise WorkerLostError(f"the worker's answer to {operation} makes no sense") from error
        finally:
            self._asking = False
            # Cancellation too leaves an answer under way that nobody will take.
            if not answered:
                self.kill()
            if not self.alive:
                self._socket.close()

    async def _exchange(self, header: Header, body: bytearray) -> tuple[Header, bytearray]:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._socket, encode_prefix_and_header(header, len(body)))
        if body:
            await loop.sock_sendall(self._socket, body)
        header_length, body_length = decode_prefix(await self._receive(PREFIX.size))
        reply = decode_header(await self._receive(header_length))
        return reply, await self._receive(body_length)

    async def _receive(self, length: int) -> bytearray:
        loop = asyncio.get_running_loop()
        buffer = bytearray(length)
        view: Any = memoryview(buffer)
        while view:
            count = await loop.sock_recv_into(self._socket, view)
            if count == 0:
                raise EOFError
            view = view[count:]
        return buffer


def _token_info(reply: Header) -> TokenInfo:
    return TokenInfo(TokenIdentity(**reply["token"]), TokenFlag(reply["flags"]))
