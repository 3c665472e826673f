"""What the service manager is told, and by whom."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from replug.agent.process.service_manager import Notifications, ServiceManager


def receiver(address: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(address)
    listening.settimeout(10)
    return listening


def test_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with receiver(path) as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        Notifications().send("READY=1\nSTATUS=2 tokens ü".encode())
        assert manager.recv(4096) == "READY=1\nSTATUS=2 tokens ü".encode()


def test_an_abstract_address(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"replug-test-{os.getpid()}"
    with receiver("\0" + name) as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        Notifications().send(b"READY=1")
        assert manager.recv(4096) == b"READY=1"


def test_children_do_not_inherit_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with receiver(path) as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        ours = Notifications()
        assert "NOTIFY_SOCKET" not in os.environ
        childs = Notifications()
        assert (ours.wanted, childs.wanted) == (True, False)
        childs.send(b"STATUS=not ours")
        ours.send(b"READY=1")
        ours.send(b"STATUS=serving")
        assert [manager.recv(4096), manager.recv(4096)] == [b"READY=1", b"STATUS=serving"]


@pytest.mark.parametrize("address", [None, ""])
def test_without_a_manager_nothing_happens(
    address: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    Notifications().send(b"READY=1")
    assert capsys.readouterr() == ("", "")


def test_an_absent_manager_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    Notifications().send(b"READY=1")
    said = capsys.readouterr().err
    assert said.startswith(f"replug-agent: cannot notify the service manager at {tmp_path / 'gone'}: ")


def test_the_agent_tells_its_supervisor() -> None:
    ours, supervisors = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, supervisors:
        ours.setblocking(False)
        manager = ServiceManager(ours)
        assert manager.listens
        manager.tell("STATUS=ü")
        assert supervisors.recv(4096) == "STATUS=ü".encode()


def test_an_agent_waits_for_no_service_manager() -> None:
    ours, supervisors = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, supervisors:
        ours.setblocking(False)
        for _ in range(5000):
            ServiceManager(ours).tell("STATUS=" + "x" * 1000)
    nobody = ServiceManager(None)
    nobody.tell("READY=1")
    assert not nobody.listens
