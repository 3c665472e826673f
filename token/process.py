"""A worker process and the agent's side of the conversation with it: start it, ask it, kill it.

There is no way back from a missed deadline, a crash or a frame that makes no sense: the process is
killed and `WorkerLostError` raised. What to do then is for who uses it to decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any, TypeVar

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

T = TypeVar("T")


class WorkerProcess:
    """One live worker process. Not reentrant: the caller sends one request at a time."""

    def __init__(self, program: str | Forked) -> None:
        """Start the module `program` (`python -m`) (OSError when it cannot be), or use a `Forked`."""
        self._asking = False
        self.alive = True
        self._socket: socket.socket
        self._process: Forked | subprocess.Popen[bytes]
        if isinstance(program, str):
            self._start(program)
        else:
            self._socket, self._process = program.connection, program
            self._exit_notice = program.exit_notice
        asyncio.get_running_loop().add_reader(self._exit_notice, self._exited)

    def _start(self, program: str) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", program, str(os.getpid()), str(theirs.fileno())],
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

    async def call(
        self,
        operation: str,
        header: Header,
        read: Callable[[Header, bytearray], T],
        deadline: float,
        body: bytearray | None = None,
    ) -> T:
        """What `read` makes of the answer, which is to come within `deadline` seconds.

        Raises WorkerRefusedError for an answer that is a refusal, WorkerLostError when there is none.
        """
        if not self.alive:
            raise WorkerLostError("the worker process had ended")
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
