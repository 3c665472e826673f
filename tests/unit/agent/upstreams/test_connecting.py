"""Whose sockets are connected to."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.stand_ins import run

from replug.agent.upstreams import connecting
from replug.agent.upstreams.connecting import Connecting
from replug.agent.upstreams.error import UpstreamAbsentError

ANOTHER = 12345


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[str]:
    """A socket where this process listens."""
    path = str(tmp_path / "agent.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        yield path


def why_not(path: str, *own: str) -> str:
    with pytest.raises(UpstreamAbsentError) as refused:
        run(Connecting(path, own).connect())
    assert refused.value.next_step, refused.value
    return refused.value.reason


def test_a_socket_of_another_user(listening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stat, found = os.stat, os.stat(listening)
    theirs = os.stat_result((*found[:4], ANOTHER, *found[5:]))
    monkeypatch.setattr(os, "stat", lambda path, **how: theirs if path == listening else stat(path, **how))
    assert why_not(listening) == f"{listening} belongs to user {ANOTHER}, not to you or root"


def test_a_socket_of_ours_where_another_user_listens(listening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "credentials", lambda _: (1, ANOTHER))
    assert why_not(listening) == f"user {ANOTHER} listens at {listening}, and that is not you or root"


def test_our_own_socket_by_another_name(
    listening: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which systemd has made, say."""
    monkeypatch.setattr(connecting, "credentials", lambda _: (1, os.geteuid()))
    other = tmp_path / "other.sock"
    other.hardlink_to(listening)
    assert why_not(str(other), listening) == f"{other} is this agent itself"


@pytest.mark.parametrize("which", ["getpid", "getppid"])
def test_a_socket_that_this_agent_or_its_supervisor_made(
    which: str, listening: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = getattr(os, which)()
    monkeypatch.setattr(connecting, "credentials", lambda _: (pid, os.geteuid()))
    assert why_not(listening) == f"{listening} is this agent itself"


def test_what_is_no_socket(tmp_path: Path) -> None:
    assert why_not(str(tmp_path)) == f"{tmp_path} is not a socket"
