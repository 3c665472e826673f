"""The process of a command that asks for a PIN: closed to others, and one above it forks its workers."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, ctypes, os, resource, signal, sys
from replug.agent.process.supervisor import run_supervised, run_until_signal
from replug.token.worker.forking import ForkServer

started = os.getpid()

def work(requests):
    assert os.getppid() == started
    closed = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0  # PR_GET_DUMPABLE
    assert closed and resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
    {}

sys.exit(run_supervised(work))
"""


def run(body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body)], capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize("status", [0, 3])
def test_the_exit_status_is_its_own(status: int) -> None:
    done = run(f"return {status}")
    assert (done.returncode, done.stderr) == (status, "")


def test_workers_are_forked_by_the_one_above() -> None:
    done = run(
        "program = 'replug.token.worker.inside.key_program'\n"
        "    async def fork(): return await ForkServer(requests).fork(program, 20)\n"
        "    forked = asyncio.run(fork())\n"
        "    parent = int(open(f'/proc/{forked.pid}/stat').read().rpartition(')')[2].split()[1])\n"
        "    return int(parent != started)"
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_it_clean_up(number: signal.Signals) -> None:
    """A terminal whose echo is off, for one."""
    done = run(
        "async def begin():\n"
        "        try:\n"
        f"            os.kill(started, {number.value})\n"
        "            await asyncio.sleep(60)\n"
        "        finally:\n"
        "            print('cleaned up', flush=True)\n"
        "    run_until_signal(begin())"
    )
    assert (done.returncode, done.stdout) == (128 + number, "cleaned up\n")


def test_a_signal_ends_what_has_begun_nothing() -> None:
    done = run("os.kill(started, signal.SIGTERM)\n    signal.pause()")
    assert done.returncode == -signal.SIGTERM


def test_a_signal_is_not_lost_in_a_destructor() -> None:
    """Where Python drops what a signal's handler raises."""
    done = run(
        "class Slow:\n"
        "        def __del__(self):\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "    async def begin():\n"
        "        Slow()\n"
        "        await asyncio.sleep(60)\n"
        "    run_until_signal(begin())"
    )
    assert done.returncode == 128 + signal.SIGTERM


def test_a_crash_ends_the_same_way() -> None:
    assert run("os.kill(os.getpid(), signal.SIGKILL)").returncode == -signal.SIGKILL
