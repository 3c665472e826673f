"""The commands' side of the control socket, while an agent is starting."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from replug.agent.control import client
from replug.agent.control.client import LIST_REQUEST, AskError, ask_at, control_path


class Starting:
    """An agent that answers clients before it has its control socket."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._clients = listening(self.path)
        self.answered = threading.Event()
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        connected, _ = self._clients.accept()
        with connected:
            assert connected.recv(100) == LIST_REQUEST
            connected.sendall(b"\0\0\0\5\x0c\0\0\0\0")
        self.answered.set()

    def serve_commands(self) -> None:
        self.answered.wait()
        with listening(control_path(self.path)) as commands:
            connected, _ = commands.accept()
            with connected:
                connected.recv(100)
                connected.sendall(b'{"version": 1}')


def listening(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind(path)
    made.listen()
    return made


def test_an_agent_that_answers_has_its_control_socket_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Starting(tmp_path / "agent")
    looks = []

    def look_again(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            threading.Thread(target=agent.serve_commands, daemon=True).start()

    monkeypatch.setattr(client.time, "sleep", look_again)
    monkeypatch.setattr(client, "_UNTIL_BOUND", 30)
    assert ask_at(agent.path, "status") == {"version": 1}
    assert len(looks) >= 3


def test_another_agent_is_not_waited_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Starting(tmp_path / "agent")
    monkeypatch.setattr(client, "_UNTIL_BOUND", 0.1)
    with pytest.raises(AskError, match="no replug-agent answers"):
        ask_at(agent.path, "status")
    assert agent.answered.is_set()
