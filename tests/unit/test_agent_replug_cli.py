"""`replug`, end to end: the program asks a running agent, or finds none, and tells a person."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
from agent_bench import LOGIN_KEY, ControlRig, listening
from stand_ins import PIN, Key, StandInToken, run

from replug.agent.control_client import control_path
from replug.agent.peer import Peer
from replug.agent.replug_cli import main
from replug.agent.status_command import describe
from replug.protocol.keys import fingerprint
from replug.protocol.messages import Lock


def test_status_for_a_person(rig: ControlRig) -> None:
    async def main() -> None:
        await rig.control.start()
        status, out, err = await rig.replug("status")
        assert (status, err) == (0, "")
        assert out.splitlines() == [
            f"replug-agent (pid {os.getpid()}) on {rig.socket}",
            "No token: add one with ssh-add -s MODULE",
        ]
        await rig.agent.add()
        _, out, _ = await rig.replug("status")
        assert 'Token "work" (serial 1) is ready, PIN remembered until the agent ends' in out.splitlines()
        assert f"  {fingerprint(LOGIN_KEY.blob)} login (ssh-ed25519)" in out.splitlines()
        await rig.agent.ask(Lock(b"secret"))
        await rig.agent.remove()
        _, out, _ = await rig.replug("status")
        lines = out.splitlines()
        assert lines[0].endswith(", locked (unlock with ssh-add -X)")
        assert lines[-4] == "Last refusals:"
        assert "RemoveSmartcardKey for " in lines[-3]
        assert [line.strip() for line in lines[-2:]] == ["the agent is locked", "unlock it with ssh-add -X"]
        rig.control.close()

    run(main())


def test_forgetting_pins(rig: ControlRig) -> None:
    async def main() -> None:
        await rig.control.start()
        await rig.agent.add()
        pin = rig.agent.keyring.pins.get(rig.agent.slots.tokens[0].identity)
        status, out, _ = await rig.replug("forget")
        assert (status, out.startswith("1 PIN")) == (0, True)
        assert pin is not None
        assert pin.value == b""
        assert await rig.agent.listed() == ["login"]
        rig.control.close()

    run(main())


def test_no_pin_can_be_asked_for(rig: ControlRig) -> None:
    async def main() -> None:
        await rig.control.start()
        await rig.agent.add()
        _, out, _ = await rig.replug("status", "--json")
        assert PIN.decode() not in out
        rig.control.close()

    run(main())


# Without an agent, or without the right one.


def ask_in_vain(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["status"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_without_an_agent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for value in (None, ""):
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        if value is not None:
            monkeypatch.setenv("SSH_AUTH_SOCK", value)
        assert ask_in_vain(capsys) == "replug: SSH_AUTH_SOCK is not set, so there is no agent to ask\n"


def test_an_agent_that_is_not_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = str(tmp_path / "agent")
    monkeypatch.setenv("SSH_AUTH_SOCK", path)
    assert ask_in_vain(capsys) == (
        f"replug: no replug-agent answers beside {path}: No such file or directory\n"
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "the agent's answer makes no sense"),
        (b"{", "the agent's answer makes no sense"),
        (b"[]\n", "the agent does not know this command: is it older than this program?"),
        (b'{"error": "unknown command"}\n', "the agent does not know this command"),
    ],
)
def test_answers_from_another_time(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    answer: bytes,
    words: str,
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"status\n"
        writer.write(answer)
        writer.close()

    async def other_agent() -> None:
        await asyncio.start_unix_server(serve, control_path(path))
        assert words in await asyncio.to_thread(ask_in_vain, capsys)

    path = str(tmp_path / "agent")
    monkeypatch.setenv("SSH_AUTH_SOCK", path)
    run(other_agent())


def test_what_another_user_listens_with_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = str(tmp_path / "agent")
    monkeypatch.setenv("SSH_AUTH_SOCK", path)
    monkeypatch.setattr(Peer, "of", lambda _socket: Peer(1, 1 + max(os.geteuid(), 1)))
    with listening(Path(control_path(path))):
        assert "another user's" in ask_in_vain(capsys)


# What a person reads.

TOKEN = {
    "label": "work",
    "serial": "1",
    "state": "ready",
    "why": "",
    "pin_remembered": False,
    "expires_in": None,
    "last_inserted": None,
    "last_removed": None,
    "keys": [],
}
STATUS: dict[str, Any] = {
    "pid": 4711,
    "socket": "/run/agent",
    "locked": False,
    "tokens": [],
    "refusals": [],
}


def test_how_long_a_pin_is_remembered() -> None:
    token = TOKEN | {"pin_remembered": True, "expires_in": 59}
    assert 'Token "work" (serial 1) is ready, PIN remembered for 59 s' in describe(
        STATUS | {"tokens": [token]}
    )


def test_the_reason_for_a_state_and_the_times_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    gone = TOKEN | {
        "state": "absent",
        "why": "it is in no slot",
        "last_inserted": 86400.0,
        "last_removed": 90000.0,
    }
    assert list(describe(STATUS | {"tokens": [gone]}))[1:] == [
        'Token "work" (serial 1) is absent: it is in no slot',
        "  last inserted 1970-01-02 00:00:00",
        "  last removed 1970-01-02 01:00:00",
    ]
    monkeypatch.undo()
    time.tzset()


def test_each_key_stands_under_its_own_token(rig: ControlRig) -> None:
    """Also where tokens have no serial number: not all do."""

    async def main() -> None:
        other = Key("other")
        rig.agent.slots.tokens = [
            StandInToken(LOGIN_KEY, label="first", serial=""),
            StandInToken(other, label="second", serial=""),
        ]
        await rig.control.start()
        await rig.agent.add(pin=b"")
        _, out, _ = await rig.replug("status")
        lines = [line.split(" (")[0] for line in out.splitlines() if "SHA256:" in line or "Token" in line]
        tokens = [lines[:2], lines[2:]]
        assert sorted(tokens) == sorted(
            [
                ['Token "first"', f"  {fingerprint(LOGIN_KEY.blob)} login"],
                ['Token "second"', f"  {fingerprint(other.blob)} other"],
            ]
        )
        rig.control.close()

    run(main())


def test_nothing_a_token_says_reaches_the_terminal_raw(rig: ControlRig) -> None:
    async def main() -> None:
        evil = "\x1b[2J\nToken forged"
        rig.agent.slots.tokens = [StandInToken(Key(evil), label=evil)]
        await rig.control.start()
        await rig.agent.add()
        _, out, _ = await rig.replug("status")
        assert all(line.isprintable() for line in out.splitlines())
        assert not any(line.startswith("Token forged") for line in out.splitlines())
        rig.control.close()

    run(main())
