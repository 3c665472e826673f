"""PIN prompts: what a program does with those on a terminal of its own is no concern of the user's ssh."""

from __future__ import annotations

import os
import pty
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rigs.agent import Agent, StartAgent
from rigs.faulty import Faulty
from rigs.softhsm import PIN

ASKED = "asked for by ssh-add (pid"
CKR_OK = 0x0


@pytest.fixture
def agent(start_agent: StartAgent, faulty: Faulty) -> Agent:
    """It has a token's key but not its PIN, and asks on terminals."""
    agent = start_agent("-P", "*", env=faulty.env)
    assert agent.add_provider(faulty.module, "").status == 0, agent.log
    return agent


class OwnTerminal:
    """The user's own program, started by another on a terminal that it has made."""

    def __init__(self, agent: Agent, public: Path) -> None:
        self.pid, self._keyboard = pty.fork()
        if self.pid == 0:
            os.execvpe("ssh-add", ["ssh-add", "-T", str(public)], agent.home.env | agent.env)
        self._shown = b""

    def await_prompt(self) -> None:
        end = time.monotonic() + 30
        while ASKED.encode() not in self._shown:
            ready, _, _ = select.select([self._keyboard], [], [], max(0, end - time.monotonic()))
            assert ready, self._shown
            self._shown += os.read(self._keyboard, 4096)

    def declines(self) -> None:
        os.write(self._keyboard, b"\x03")

    def end(self) -> None:
        os.close(self._keyboard)
        os.waitpid(self.pid, 0)


@pytest.fixture
def start(agent: Agent, faulty: Faulty) -> Iterator[Callable[[], OwnTerminal]]:
    """Starts such programs."""
    started: list[OwnTerminal] = []

    def start() -> OwnTerminal:
        started.append(OwnTerminal(agent, faulty.public))
        return started[-1]

    yield start
    for one in started:
        one.end()


def test_one_that_does_not_answer_keeps_the_user_waiting_for_nothing(
    agent: Agent, faulty: Faulty, start: Callable[[], OwnTerminal]
) -> None:
    start().await_prompt()

    done = agent.ssh_add("-T", faulty.public, typing=[(ASKED, PIN)])

    assert done.status == 0, (done, agent.log)
    assert faulty.returns("C_Login") == [CKR_OK]


def test_one_that_declines_again_and_again_holds_back_nobody_else(
    agent: Agent, faulty: Faulty, start: Callable[[], OwnTerminal]
) -> None:
    for _ in range(3):
        bomber = start()
        bomber.await_prompt()
        bomber.declines()
        os.waitid(os.P_PID, bomber.pid, os.WEXITED | os.WNOWAIT)
    assert agent.log.count("the PIN prompt was cancelled") == 3

    done = agent.ssh_add("-T", faulty.public, typing=[(ASKED, PIN)])

    assert done.status == 0, (done, agent.log)
    assert faulty.returns("C_Login") == [CKR_OK]
