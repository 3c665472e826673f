"""Modules and workers that misbehave: a request fails with its reason, or succeeds at the second try.

Each test has a second, healthy module beside the bad one; its keys have to work on, all the time.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rigs.agent import Agent, StartAgent
from rigs.faulty import Faulty
from rigs.home import Home
from rigs.softhsm import MODULE, PIN, Token
from rigs.terminal import eventually


@pytest.fixture
def agent(start_agent: StartAgent, faulty: Faulty, home: Home) -> Iterator[Agent]:
    """An agent with a healthy module loaded, which has to sign when the test is over."""
    healthy = Token(home, "healthy")
    public = healthy.add("p384")
    home.write(".config/replug/config.toml", 'modules = []\ntouch_timeout = "5s"\n')
    agent = start_agent("-P", "/usr/lib/*," + str(faulty.home.folder) + "/*", env=faulty.env)
    assert agent.add_provider(MODULE, PIN).status == 0, agent.log
    yield agent
    assert public.read_text().strip() in agent.ssh_add("-L").out
    assert agent.ssh_add("-T", public).status == 0, agent.log


@pytest.fixture
def faulty_added(agent: Agent, faulty: Faulty) -> Faulty:
    """The misbehaving module, added while it still behaves."""
    assert agent.add_provider(faulty.module, PIN).status == 0, agent.log
    assert agent.ssh_add("-T", faulty.public).status == 0, agent.log
    return faulty


def refused(agent: Agent, module: Path | str) -> str:
    """Adds a provider that has to be refused; returns what the agent logged about it."""
    seen = len(agent.log)
    done = agent.add_provider(module, PIN)
    assert (done.status, done.err) == (1, f'Could not add card "{module}": agent refused operation\n')
    return agent.log[seen:]


def test_a_module_that_does_not_exist(agent: Agent) -> None:
    log = refused(agent, "/usr/lib/not-there.so")
    assert "/usr/lib/not-there.so" in log
    assert "does not exist" in log


def test_a_library_that_is_no_module(agent: Agent) -> None:
    library = next(Path("/usr/lib").glob("*/libcrypto.so.3"))
    log = refused(agent, library)
    assert "not a PKCS#11 module" in log


def test_a_file_that_is_no_library(agent: Agent, faulty: Faulty) -> None:
    log = refused(agent, faulty.home.write("text.so", "this is text\n"))
    assert "not a PKCS#11 module" in log


def test_a_module_outside_the_allow_list(agent: Agent, home: Home) -> None:
    module = home.write("elsewhere.so", MODULE.read_bytes())
    log = refused(agent, module)
    assert str(module) in log
    assert "-P" in log


def test_a_module_that_crashes_when_it_is_initialised(agent: Agent, faulty: Faulty) -> None:
    faulty.tell("C_Initialize", "crash")

    log = refused(agent, faulty.module)

    assert faulty.entered("C_Initialize") in (1, 2)
    assert str(faulty.module) in log

    faulty.tell("C_Initialize", None)
    assert agent.add_provider(faulty.module, PIN).status == 0, agent.log


def test_a_module_that_says_it_cannot_start(agent: Agent, faulty: Faulty) -> None:
    faulty.tell("C_Initialize", "fail 0x30")
    assert str(faulty.module) in refused(agent, faulty.module)


def test_a_crash_while_signing_is_made_good(agent: Agent, faulty_added: Faulty) -> None:
    faulty_added.tell("C_Sign", "once crash")
    assert agent.ssh_add("-T", faulty_added.public).status == 0, agent.log


def test_a_module_that_always_crashes_while_signing(agent: Agent, faulty_added: Faulty) -> None:
    faulty_added.tell("C_Sign", "crash")
    seen = len(agent.log)

    assert agent.ssh_add("-T", faulty_added.public).status == 1

    assert "ended during sign" in agent.log[seen:]
    assert faulty_added.entered("C_Sign") == 3  # the good one before, this one and its one retry

    faulty_added.tell("C_Sign", None)
    assert agent.ssh_add("-T", faulty_added.public).status == 0, agent.log


def test_a_session_the_token_forgot_is_made_good(agent: Agent, faulty_added: Faulty) -> None:
    faulty_added.tell("C_SignInit", "once fail 0xB3")  # CKR_SESSION_HANDLE_INVALID
    assert agent.ssh_add("-T", faulty_added.public).status == 0, agent.log
    assert set(faulty_added.returns("C_Login")) == {0}


def test_a_hang_while_signing_is_made_good(agent: Agent, faulty_added: Faulty) -> None:
    """It takes as long as a person may take to touch the token, here 5 s; the other module signs on."""
    faulty_added.tell("C_Sign", "once hang")
    with ThreadPoolExecutor() as other:
        signing = other.submit(agent.ssh_add, "-T", faulty_added.public)
        faulty_added.await_calls("C_Sign", 2)

        assert agent.ssh_add("-T", agent.home.folder / "p384.pub").status == 0
        assert not signing.done()

        assert signing.result().status == 0, agent.log
    assert "no answer to sign within 5 s" in agent.log


def test_a_module_that_always_hangs_while_signing(agent: Agent, faulty_added: Faulty) -> None:
    faulty_added.tell("C_Sign", "hang")

    assert agent.ssh_add("-T", faulty_added.public).status == 1

    assert "failed twice: no answer to sign within 5 s" in agent.log
    assert faulty_added.entered("C_Sign") == 3  # the good one before, this one and its one retry


def test_a_worker_killed_while_idle(agent: Agent, faulty_added: Faulty) -> None:
    for _ in range(3):
        kill_all(agent.children())
        assert agent.ssh_add("-T", faulty_added.public).status == 0, agent.log
    assert set(faulty_added.returns("C_Login")) == {0}


def test_a_worker_killed_in_the_middle_of_a_signature(agent: Agent, faulty_added: Faulty) -> None:
    faulty_added.tell("C_Sign", "once hang")
    with ThreadPoolExecutor() as other:
        signing = other.submit(agent.ssh_add, "-T", faulty_added.public)
        faulty_added.await_calls("C_Sign", 2)
        os.kill(faulty_added.process_in("C_Sign"), signal.SIGKILL)

        assert signing.result().status == 0, agent.log
    assert set(faulty_added.returns("C_Login")) == {0}


def test_a_killed_worker_leaves_no_zombie(agent: Agent, faulty_added: Faulty) -> None:
    killed = agent.children()
    assert killed != []

    kill_all(killed)

    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in killed), "the workers' end")


def test_workers_end_with_a_killed_agent(start_agent: StartAgent, faulty: Faulty, home: Home) -> None:
    Token(home, "healthy").add("p384")
    agent = Agent(start_agent().process.args[0], home)
    assert agent.add_provider(MODULE, PIN).status == 0, agent.log
    assert agent.children() != []
    processes = agent.processes[1:]

    agent.process.kill()
    agent.process.wait()

    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), "the end of all")


def kill_all(processes: list[int]) -> None:
    for pid in reversed(processes):  # children before what they end with
        os.kill(pid, signal.SIGKILL)
