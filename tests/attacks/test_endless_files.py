"""Files that never end, or have no contents before somebody writes them, where `replug` reads the user's."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rigs.agent import StartAgent
from rigs.home import Home
from rigs.user_manager import UserManager

REPLUG = Path(sys.executable).with_name("replug")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def as_long_as_the_memory(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


_START_FILES = {  # not gpg-agent.conf, which a program of GnuPG reads at login
    ".profile": fifo,
    ".bashrc": endless,
    ".zshrc": as_long_as_the_memory,
    ".ssh/config": fifo,
}
_EACH = pytest.mark.parametrize("make", [fifo, endless, as_long_as_the_memory])


def test_setup_goes_on_without_them(home: Home, log_in: Callable[[], UserManager]) -> None:
    for name, make in _START_FILES.items():
        path = home.folder / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        make(path)
    session = log_in()
    done = session.replug("setup", "--dry-run")
    assert done.out.startswith("replug setup would"), done
    done = session.replug("setup")
    assert "Done: the agent answers." in done.out, done


@_EACH
def test_a_record_of_certificates_that_is_none_is_said_to_be(
    make: Callable[[Path], None], home: Home, start_agent: StartAgent
) -> None:
    journal = home.folder / ".local/state/replug/issued.jsonl"
    journal.parent.mkdir(parents=True, mode=0o700)
    make(journal)
    agent = start_agent()
    for command in (["issued"], ["revoke", "alice"]):
        done = agent.run(REPLUG, "ca", *command)
        assert done.status == 1
        assert done.err.startswith(f"replug: {journal}: "), done
