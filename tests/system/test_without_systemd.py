"""`replug setup` where no user manager runs: lines for ~/.profile, and what they do."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from rigs.agent import Agent
from rigs.home import Home
from rigs.terminal import Done, eventually

REPLUG = Path(sys.executable).with_name("replug")


def profile(home: Home) -> str:
    """The lines, which are the end of what is printed."""
    done = home.run(REPLUG, "setup")
    assert (done.status, done.err) == (3, "")
    assert done.out.startswith("No systemd user manager answers here: ")
    return done.out.partition("\n\n")[2]


@pytest.mark.parametrize("path", ["as it is", "without systemctl"])
def test_it_says_so_and_changes_nothing(path: str, home: Home) -> None:
    before = sorted(home.folder.rglob("*"))
    if path == "without systemctl":
        home.env["PATH"] = str(REPLUG.parent)
        assert "this machine has no systemctl" in home.run(REPLUG, "setup").out
    assert "replug-agent -a" in profile(home)
    found = home.run(REPLUG, "doctor").out.splitlines()
    assert "ok   unit: no systemd user manager runs here, so the agent is started by hand" in found
    assert (
        "fail agent: SSH_AUTH_SOCK is not set; fix: replug setup for every login, or eval $(replug-agent -s)"
        " for this shell"
    ) in found
    without = home.run("/usr/bin/ssh-add", "-l")
    assert without == Done(2, "", "Could not open a connection to your authentication agent.\n")
    assert home.run(REPLUG, "setup", "--remove").status == 3
    assert sorted(home.folder.rglob("*")) == before


def agents(socket: Path) -> list[int]:
    """The processes that were started with this socket's path, without those that they have forked."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.fsencode(socket) in (process / "cmdline").read_bytes().split(b"\0"):
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                found[int(process.name)] = int(parent)
    return [pid for pid, parent in found.items() if parent not in found]


def test_every_login_has_the_same_agent_until_that_ends(home: Home) -> None:
    home.write("profile", profile(home))
    login = ("sh", "-c", ". ./profile; echo $SSH_AUTH_SOCK; ssh-add -l")
    socket = home.folder / "run" / "replug.sock"
    expected = Done(1, f"{socket}\nThe agent has no identities.\n", "")
    try:
        assert home.run(*login) == expected
        (first,) = agents(socket)
        assert home.run(*login) == expected
        assert agents(socket) == [first]
        os.kill(first, signal.SIGKILL)
        eventually(lambda: not agents(socket), "its end")
        assert home.run(*login) == expected
        assert len(agents(socket)) == 1
    finally:
        for pid in agents(socket):
            os.kill(pid, signal.SIGTERM)


def test_a_forwarded_agent_stays(home: Home, agent: Agent) -> None:
    home.write("profile", profile(home))
    done = agent.run("sh", "-c", ". ./profile; echo $SSH_AUTH_SOCK")
    assert done == Done(0, f"{agent.socket}\n", "")
