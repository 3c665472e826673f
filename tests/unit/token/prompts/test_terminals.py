"""Processes that use terminals: how long they are waited for, how many there may be, what is left of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable

import pytest
from doubles.fork_servers import RunningForkServer
from doubles.screen import Screen
from doubles.stand_ins import run
from rigs.agent import descendants

from replug.token.errors import NobodyAskedError
from replug.token.prompts.terminals import (
    MOST,
    MOST_OF_A_PROCESS,
    MOST_OF_A_PROGRAM,
    NoAnswerError,
    Terminals,
)
from replug.token.prompts.typed_line import Outcome
from replug.token.requester import NOBODY, Requester, requester
from replug.token.worker.forking import Forked


class Watched(RunningForkServer):
    """One that keeps what it has forked."""

    def __init__(self) -> None:
        super().__init__()
        self.forked: list[Forked] = []
        self.changed = asyncio.Condition()
        self.may_fork = asyncio.Event()
        self.may_fork.set()

    async def fork(self, program: str, patience: float) -> Forked:
        await self.may_fork.wait()
        async with self.changed:
            self.forked.append(await super().fork(program, patience))
            self.changed.notify_all()
        return self.forked[-1]

    async def has_forked(self, count: int) -> Forked:
        """The last of so many."""
        async with asyncio.timeout(30), self.changed:
            await self.changed.wait_for(lambda: len(self.forked) >= count)
        return self.forked[-1]


@pytest.fixture
def server() -> Watched:
    return Watched()


def asking(terminals: Terminals, screen: Screen, who: Requester = NOBODY) -> asyncio.Task:
    """A question that stays until it is answered or cancelled, for somebody."""

    async def ask() -> tuple[Outcome, bytearray]:
        requester.set(who)
        return await terminals.ask(screen.terminal, "PIN: ", 60, most=16, echo=False)

    return asyncio.create_task(ask())


def in_loop(server: Watched, test: Callable[[Terminals], Awaitable[None]]) -> None:
    async def main() -> None:
        await test(Terminals(server))

    try:
        run(main())
    finally:
        server.end()


def test_a_process_that_does_not_respond_is_not_waited_for(screen: Screen, server: Watched) -> None:
    async def test(terminals: Terminals) -> None:
        question = asyncio.create_task(terminals.ask(screen.terminal, "", 2, most=16, echo=False))
        process = await server.has_forked(1)
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(NoAnswerError, match=f"{screen.path} does not respond"):
            await question
        while terminals._in_use:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.01)

    in_loop(server, test)


def test_a_process_that_another_program_ends_is_a_failure(screen: Screen, server: Watched) -> None:
    async def test(terminals: Terminals) -> None:
        question = asking(terminals, screen)
        await screen.shows("PIN: ")
        server.forked[0].kill()
        with pytest.raises(NobodyAskedError, match=f"the process that uses {screen.path} was ended"):
            await question

    in_loop(server, test)


def test_there_are_only_so_many_for_a_process_a_program_and_in_all(screen: Screen, server: Watched) -> None:
    async def test(terminals: Terminals) -> None:
        questions: list[asyncio.Task] = []

        async def ask_until_refused(askers: list[Requester]) -> int:
            before = len(questions)
            for who in askers:
                question = asking(terminals, screen, who)
                await asyncio.wait([question], timeout=0.001)
                if question.done():
                    with pytest.raises(NobodyAskedError, match="too many terminals"):
                        await question
                    break
                questions.append(question)
            return len(questions) - before

        # One terminal takes one question: the processes for the others would end at once.
        server.may_fork.clear()
        program = (1, "/usr/bin/ssh")
        assert await ask_until_refused([Requester(program, 1)] * 100) == MOST_OF_A_PROCESS
        others = [Requester(program, pid) for pid in range(2, 100)]
        assert await ask_until_refused(others) == MOST_OF_A_PROGRAM - MOST_OF_A_PROCESS
        others = [Requester((1, f"/usr/bin/{pid}"), pid) for pid in range(100)]
        assert await ask_until_refused(others) == MOST - MOST_OF_A_PROGRAM

        server.may_fork.set()
        await server.has_forked(MOST)
        for question in questions:
            question.cancel()
        await asyncio.gather(*questions, return_exceptions=True)
        while terminals._in_use:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.01)
        assert await ask_until_refused([Requester(program, 1)]) == 1
        questions[-1].cancel()
        await asyncio.wait(questions)

    in_loop(server, test)


def test_no_process_can_be_started(screen: Screen, server: Watched) -> None:
    server.end()

    async def test(terminals: Terminals) -> None:
        for _ in range(2 * MOST_OF_A_PROCESS):
            with pytest.raises(NobodyAskedError, match=f"no process to use {screen.path}: "):
                await terminals.check(screen.terminal, 60)

    in_loop(server, test)


def test_a_program_that_cannot_be_ended_counts_until_it_has_ended(screen: Screen, server: Watched) -> None:
    class LeftRunning:
        """As `dialog`, for a program that waits in the kernel."""

        async def __aenter__(self) -> subprocess.Popen[bytes]:
            self.process = subprocess.Popen(["sleep", "600"])
            return self.process

        async def __aexit__(self, *_: object) -> None:
            pass

    async def test(terminals: Terminals) -> None:
        left = [LeftRunning() for _ in range(MOST_OF_A_PROCESS)]
        for one in left:
            async with terminals.counted(one):  # type: ignore[arg-type]
                pass
        with pytest.raises(NobodyAskedError, match="too many terminals"):
            await terminals.check(screen.terminal, 60)
        left[0].process.kill()
        while len(terminals._in_use) == len(left):  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.01)
        assert left[0].process.returncode == -signal.SIGKILL
        await terminals.check(screen.terminal, 60)
        for one in left[1:]:
            one.process.kill()
            one.process.wait()

    in_loop(server, test)


def test_nothing_is_left_of_a_process_whose_question_was_answered(screen: Screen, server: Watched) -> None:
    async def test(terminals: Terminals) -> None:
        question = asking(terminals, screen)
        await screen.shows("PIN: ")
        screen.type("123456\n")
        assert await question == (Outcome.ENTERED, bytearray(b"123456"))
        while terminals._in_use:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.01)
        assert descendants(server.process.pid) == []

    in_loop(server, test)
