"""What the service manager is told."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

import pytest

from replug.agent.process.service_manager import ServiceManager


def receiver(address: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(address)
    listening.settimeout(10)
    return listening


def test_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with receiver(path) as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        ServiceManager().tell("READY=1\nSTATUS=2 tokens ü")
        assert manager.recv(4096) == "READY=1\nSTATUS=2 tokens ü".encode()


def test_an_abstract_address(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"replug-test-{os.getpid()}"
    with receiver("\0" + name) as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        ServiceManager().tell("READY=1")
        assert manager.recv(4096) == b"READY=1"


def test_children_do_not_inherit_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with receiver(path) as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        ours = ServiceManager()
        assert "NOTIFY_SOCKET" not in os.environ
        childs = ServiceManager()
        assert (ours.listens, childs.listens) == (True, False)
        childs.tell("STATUS=not ours")
        ours.tell("READY=1")
        ours.tell("STATUS=serving")
        assert [manager.recv(4096), manager.recv(4096)] == [b"READY=1", b"STATUS=serving"]


@pytest.mark.parametrize("address", [None, ""])
def test_without_a_manager_nothing_happens(
    address: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    ServiceManager().tell("READY=1")
    assert caplog.records == []


def test_an_absent_manager_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    with caplog.at_level(logging.WARNING):
        ServiceManager().tell("READY=1")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(tmp_path / "gone") in caplog.text
