"""Which command a process belongs to."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from rigs.terminal import eventually

from replug.token.prompts.processes import Process, command_of

SPAWN = "import pty, sys; pty.spawn(sys.argv[1:])"


def sleeper_of(parent: int) -> int:
    """The process `sleep` among the descendants of another."""
    found: list[int] = []

    def look() -> bool:
        found[:] = subprocess.run(
            ["ps", "-eo", "pid=,ppid=,comm="], capture_output=True, text=True, check=True
        ).stdout.splitlines()  # type: ignore[assignment]
        parents = {int(line.split()[0]): int(line.split()[1]) for line in found}
        names = {int(line.split()[0]): line.split()[2] for line in found}
        for pid, name in names.items():
            at = pid
            while name == "sleep" and at in parents:
                if at == parent:
                    found[:] = [pid]
                    return True
                at = parents[at]
        return False

    eventually(look, "sleep runs")
    return found[0]


@pytest.mark.parametrize(
    ("command", "first"),
    [
        (["sleep", "600"], "sleep"),
        # A script and what it runs, however deep, is one command.
        (["sh", "-c", "sh -c 'sleep 600; true'; true"], "sh"),
        (["setsid", "-f", "-w", "sh", "-c", "sleep 600; true"], "setsid"),
    ],
)
def test_what_a_shell_on_a_terminal_has_started(command: list[str], first: str) -> None:
    line = " ".join(f"'{word}'" if " " not in word else f'"{word}"' for word in command)
    with subprocess.Popen(
        [sys.executable, "-c", SPAWN, "sh", "-c", f"{line}; true"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as terminal:  # fmt: skip
        try:
            found = command_of(sleeper_of(terminal.pid))
            assert found is not None
            process = Process.read(found[0])
            assert process is not None
            assert (process.name, process.started) == (first, found[1])
        finally:
            terminal.kill()


def test_two_processes_of_one_program_are_one_command() -> None:
    """Here that program is the tests'."""
    processes = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    try:
        assert command_of(processes[0].pid) == command_of(processes[1].pid) == command_of(os.getpid())
        assert command_of(os.getpid()) is not None
    finally:
        for process in processes:
            process.kill()
            process.wait()


SHELL, IDE, SSH = ("bash", True), ("code", False), ("ssh", False)
DESKTOP = ("desktop", False)
"""It has a cgroup of its own."""
MANAGER, INIT, SSHD = ("systemd", False), ("init", False), ("sshd", False)


@pytest.mark.parametrize(
    ("ancestors", "first"),
    [
        ([SSH, SHELL, IDE, MANAGER, INIT], 0),
        ([SSH, ("git", False), SHELL, IDE, MANAGER, INIT], 1),
        # An editor that the desktop has started is one command, whatever it starts.
        ([SSH, ("git", False), IDE, DESKTOP, MANAGER, INIT], 2),
        ([SSH, ("sh", False), INIT], 1),
        ([SSH, SSHD, INIT], 0),
        # In a terminal that was made for it.
        ([("ssh", True), ("tmux", False), INIT], 0),
        # What has left the one that started it is together with all such.
        ([SSH, MANAGER, INIT], None),
        ([SSH, INIT], None),
    ],
)
def test_the_command(
    ancestors: list[tuple[str, bool]], first: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name, and whether it leads a session with a terminal; the asking process first."""
    pids = [*range(100 + len(ancestors), 101, -1), 1]

    def read(pid: int) -> Process | None:
        if pid not in pids:
            return None
        place = pids.index(pid)
        name, leads = ancestors[place]
        parent = pids[place + 1] if pid != 1 else 0
        cgroup = name if (name, leads) == DESKTOP else "program"
        return Process(pid, name, parent, pid, pid if leads else 7, 0x8800 if leads else 0, 0, pid, cgroup)

    monkeypatch.setattr(Process, "read", read)
    assert command_of(pids[0]) == (None if first is None else (pids[first], pids[first]))


def test_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command_of(None) is None
    monkeypatch.setattr(Process, "read", lambda _: None)
    assert command_of(100) is None
