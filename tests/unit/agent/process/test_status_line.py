"""The line that `systemctl --user status` shows."""

from __future__ import annotations

import asyncio
import socket

import pytest

from replug.agent.process.service_manager import ServiceManager
from replug.agent.process.status_line import TokenLine, keep_status, status_line
from replug.token.serving.presence import TokenState

WORK = TokenLine("work", TokenState.READY, 2)
HOME_OUT = TokenLine("home", TokenState.ABSENT, 1)


@pytest.mark.parametrize(
    ("tokens", "line"),
    [
        ([], "No token yet; plug one in, or add one with ssh-add -s"),
        ([WORK], 'Serving 2 keys on token "work"'),
        ([TokenLine("work", TokenState.PRESENT, 1)], 'Serving 1 key on token "work"'),
        ([HOME_OUT], 'Token "home" is out'),
        ([WORK, HOME_OUT], 'Serving 2 keys on token "work"; token "home" is out'),
        (
            [WORK, TokenLine("spare", TokenState.PRESENT, 1)],
            'Serving 2 keys on token "work" and 1 key on token "spare"',
        ),
        ([TokenLine("work", TokenState.LOCKED, 2)], 'Token "work" is locked'),
        (
            [TokenLine("hsm", TokenState.UNREACHABLE, 2), WORK],
            'Serving 2 keys on token "work"; token "hsm" is unreachable',
        ),
        (
            [TokenLine("a\nREADY=1", TokenState.PRESENT, 0)],
            'Serving 0 keys on token "a\N{REPLACEMENT CHARACTER}READY=1"',
        ),
    ],
)
def test_what_it_says(tokens: list[TokenLine], line: str) -> None:
    assert status_line(tokens, locked=False) == line


def test_a_locked_agent_tells_of_no_token() -> None:
    assert status_line([WORK], locked=True) == "Locked; unlock with ssh-add -X"


class EndOfTestError(Exception):
    pass


def test_it_is_told_again_only_when_it_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replug.agent.process.status_line._BETWEEN", 0)
    looks = [False] * 5 + [True] * 5 + [False] * 5

    def locked() -> bool:
        if not looks:
            raise EndOfTestError
        return looks.pop()

    ours, manager = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, manager:
        manager.settimeout(10)
        with pytest.raises(EndOfTestError):
            asyncio.run(keep_status(ServiceManager(ours), list, locked, str))
        told = [manager.recv(4096).decode() for _ in range(3)]
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(4096)
    assert told == [
        "STATUS=No token yet; plug one in, or add one with ssh-add -s",
        "STATUS=Locked; unlock with ssh-add -X",
        "STATUS=No token yet; plug one in, or add one with ssh-add -s",
    ]


def test_without_a_service_manager_it_ends() -> None:
    asyncio.run(asyncio.wait_for(keep_status(ServiceManager(None), list, bool, str), 10))
