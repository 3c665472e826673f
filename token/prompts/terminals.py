"""Conversations with terminals, each in a process of its own (`terminal_program.py`).

Whoever made a terminal can have whoever uses it wait in the kernel, where not even SIGKILL ends that. Such
processes are waited for here, so long and no longer, and counted until they have ended.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TypeAlias

from replug.token.errors import NobodyAskedError
from replug.token.prompts.dialog import readable
from replug.token.prompts.place import Terminal
from replug.token.prompts.typed_line import Outcome
from replug.token.requester import Requester, requester
from replug.token.worker.forking import Forked, ForkServer
from replug.token.worker.frames import FrameError, FrameReader, Header, encode

_PROGRAM = "replug.token.prompts.terminal_program"
MOST = 64
"""Processes that use a terminal, or cannot end because it hangs."""
MOST_OF_A_PROGRAM = 16
MOST_OF_A_PROCESS = 8
_GRACE = 2.0  # seconds for a process to report that the time for an answer is over
_TO_RESTORE = 0.5  # seconds for one that nobody waits for to restore its terminal


Program: TypeAlias = subprocess.Popen[bytes]


class NoAnswerError(Exception):
    """The terminal does not respond."""


class Terminals:
    """Uses terminals for this process."""

    def __init__(self, fork_server: ForkServer | None) -> None:
        """With None none can be used: for programs that only find out how they would ask."""
        self._fork_server = fork_server
        self._in_use: list[Requester] = []
        """For whom, of each."""

    async def check(self, terminal: Terminal, seconds: float) -> None:
        """Raise NobodyAskedError if it cannot be used, NoAnswerError if that is not known after `seconds`."""
        await self._converse(terminal, {"operation": "check", "seconds": seconds})

    async def say(self, terminal: Terminal, text: str, seconds: float) -> None:
        """Show as much of `text` as there is room for. Raises as `check`."""
        await self._converse(terminal, {"operation": "say", "text": text, "seconds": seconds})

    async def ask(
        self, terminal: Terminal, text: str, seconds: float, *, most: int, echo: bool
    ) -> tuple[Outcome, bytearray]:
        """How the question `text` ended within `seconds`, and the line typed, of at most `most` bytes.

        Raises as `check`. When this is cancelled, the question is taken back.
        """
        task = {"operation": "ask", "text": text, "seconds": seconds, "most": most, "echo": echo}
        return await self._converse(terminal, task)

    @asynccontextmanager
    async def counted(self, running: AbstractAsyncContextManager[Program]) -> AsyncIterator[Program]:
        """Enters `running`, a program that uses a terminal and is ended then. NobodyAskedError."""
        asker, program = self._one_more(), None
        try:
            async with running as program:
                yield program
        finally:
            if program is None or program.returncode is not None:
                self._in_use.remove(asker)
            else:
                self._when_ended(os.pidfd_open(program.pid), program.poll, asker)

    async def _converse(self, terminal: Terminal, task: Header) -> tuple[Outcome, bytearray]:
        if self._fork_server is None:
            raise NobodyAskedError("this program asks on no terminals")
        asker = self._one_more()
        try:
            process = await self._fork_server.fork(_PROGRAM, task["seconds"])
        except BaseException as error:
            self._in_use.remove(asker)
            if isinstance(error, OSError):
                raise NobodyAskedError(f"no process to use {terminal.path}: {error.strerror}") from error
            raise
        ended = self._when_ended(process.exit_notice, process.wait, asker)
        try:
            async with asyncio.timeout(task["seconds"] + _GRACE):
                header, typed = await _answer(process, {"terminal": _fields(terminal), **task})
        except asyncio.CancelledError:
            process.connection.close()  # at which it takes the question back, and ends
            await _for_a_moment(ended)
            raise
        except TimeoutError:
            raise NoAnswerError(f"{terminal.path} does not respond") from None
        except (EOFError, OSError, FrameError):
            raise NobodyAskedError(f"the process that uses {terminal.path} was ended") from None
        finally:
            process.connection.close()
            with suppress(ProcessLookupError):
                process.kill()
        outcome = Outcome(header["outcome"])
        if outcome is Outcome.UNUSABLE:
            raise NobodyAskedError(header["reason"])
        return outcome, typed

    def _one_more(self) -> Requester:
        """For whom it is counted. NobodyAskedError if there are too many."""
        asker = requester.get()
        if (
            len(self._in_use) >= MOST
            or self._in_use.count(asker) >= MOST_OF_A_PROCESS
            or sum(other.program == asker.program for other in self._in_use) >= MOST_OF_A_PROGRAM
        ):
            raise NobodyAskedError("too many terminals are in use, or do not respond")
        self._in_use.append(asker)
        return asker

    def _when_ended(self, notice: int, reap: Callable[[], object], asker: Requester) -> asyncio.Event:
        """Set when the process has ended whose pidfd is `notice`; until then it counts."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def take_leave() -> None:
            loop.remove_reader(notice)
            os.close(notice)
            reap()
            self._in_use.remove(asker)
            ended.set()

        loop.add_reader(notice, take_leave)
        return ended


def _fields(terminal: Terminal) -> list[str | int]:
    return [terminal.path, terminal.device, terminal.process]


async def _answer(process: Forked, task: Header) -> tuple[Header, bytearray]:
    """The answer to `task`, with what was typed, which the caller wipes. EOFError, OSError, FrameError."""
    frames = FrameReader()
    process.connection.send(encode(task))
    try:
        while True:
            await readable(process.connection.fileno())
            with frames.writable() as space:
                count = process.connection.recv_into(space)
            if count == 0:
                raise EOFError
            frames.received(count)
            if answer := frames.take():
                return answer
    finally:
        frames.wipe()


async def _for_a_moment(event: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_TO_RESTORE):
            await event.wait()
