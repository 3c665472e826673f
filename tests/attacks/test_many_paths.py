"""A program that is copied again and again has no more turns than one, as anybody can make copies."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from rigs.agent import Agent
from rigs.home import Home
from rigs.root import AS_ROOT
from rigs.terminal import eventually

from replug.agent.clients.peer import Peer
from replug.token.requester import Requester

_SOURCE = Path(__file__).with_name("holder.c")
_COPIES = 60


@pytest.fixture
def few(home: Home, request: pytest.FixtureRequest) -> Iterator[Agent]:
    """An agent that serves 24 clients at once."""
    program = home.write(
        "few", f'#!/bin/sh\nulimit -n 48\nexec {request.config.getoption("agent")} "$@"\n', 0o755
    )
    agent = Agent(program, home)
    yield agent
    agent.stop()


@contextmanager
def started(*argv: str | Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_copies_do_not_keep_another_program_out(few: Agent, tmp_path: Path) -> None:
    holder = tmp_path / "holder"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", holder, _SOURCE], check=True)
    with ExitStack() as stack:
        for number in range(_COPIES):
            copy = tmp_path / f"holder{number}"
            os.link(holder, copy)
            process = stack.enter_context(started(copy, few.socket))
            assert process.stdout
            assert process.stdout.readline() == "connected\n"
        for _ in range(5):
            begun = time.monotonic()
            assert few.ssh_add("-l").status == 1
            assert time.monotonic() - begun < 5


def requester_of(*argv: str | Path, name: str) -> Requester:
    """Who the process counts as, once it runs the program `name`."""
    with started(*argv) as process:
        exe = Path(f"/proc/{process.pid}/exe")
        eventually(lambda: exe.readlink().name.startswith(name), "the program runs")
        requester = Peer(process.pid, os.getuid()).requester
        assert requester.pid == process.pid
    return requester


def test_an_installed_program_is_one_of_its_own() -> None:
    sleep = requester_of("sleep", "60", name="sleep")
    assert sleep.program == (os.stat("/proc/self/ns/mnt").st_ino, "/usr/bin/sleep")


def test_copies_share_one_turn(tmp_path: Path) -> None:
    for name in ("copied", "again"):
        shutil.copy("/usr/bin/sleep", tmp_path / name)
        assert requester_of(tmp_path / name, "60", name=name).program is None


def test_so_do_programs_that_were_put_elsewhere_in_a_namespace(tmp_path: Path) -> None:
    """In a user namespace any user mounts what he likes at the place of an installed program."""
    if subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    shutil.copy("/usr/bin/sleep", tmp_path / "copied")
    script = f"mount --bind {tmp_path / 'copied'} /usr/bin/tac && exec /usr/bin/tac 60"
    assert requester_of("unshare", "-Urm", "sh", "-c", script, name="tac").program is None


def test_so_do_programs_that_a_sandbox_of_root_shows_elsewhere(tmp_path: Path) -> None:
    """bwrap, where it is setuid root, and the like: no user namespace, and a file of the user's in /usr."""
    shutil.copy("/usr/bin/sleep", tmp_path / "copied")
    become = ("setpriv", f"--reuid={os.getuid()}", f"--regid={os.getgid()}", "--clear-groups")
    script = f"mount --bind {tmp_path / 'copied'} /usr/bin/tac && exec {' '.join(become)} /usr/bin/tac 60"
    assert requester_of(*AS_ROOT, "unshare", "--mount", "sh", "-c", script, name="tac").program is None


def test_so_do_programs_that_come_from_a_namespace(tmp_path: Path) -> None:
    """What is mounted in one can be run outside of it, with a path at which only root can put things."""
    if subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    script = "mount -t tmpfs none /usr/share && cp /usr/bin/sleep /usr/share/copied && echo ready && exec cat"
    with started("unshare", "-Urm", "sh", "-c", script) as holding:
        assert holding.stdout
        assert holding.stdout.readline() == "ready\n"
        elsewhere = Path(f"/proc/{holding.pid}/root/usr/share/copied")
        assert requester_of(elsewhere, "60", name="copied").program is None


def test_one_that_is_mounted_over_an_installed_program_is_not_that(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    shutil.copy("/usr/bin/sleep", tmp_path / "copied")
    script = f"mount --bind {tmp_path / 'copied'} /usr/bin/tac && echo ready && exec cat"
    with started("unshare", "-Urm", "sh", "-c", script) as holding:
        assert holding.stdout
        assert holding.stdout.readline() == "ready\n"
        assert requester_of(f"/proc/{holding.pid}/root/usr/bin/tac", "60", name="tac").program is None


def test_so_do_programs_without_a_path() -> None:
    """There is no file of this name: a program in memory calls itself what it likes."""
    script = (
        "import os; memory = os.memfd_create('usr'); os.write(memory, open('/usr/bin/sleep', 'rb').read());"
        "os.execve(memory, ['sleep', '60'], {})"
    )
    assert requester_of("/usr/bin/python3", "-c", script, name="memfd:usr").program is None
