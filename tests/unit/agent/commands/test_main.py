"""`replug`, end to end: the program asks a running agent, or finds none, and tells the user."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from doubles.agent_bench import ControlRig, listening
from doubles.stand_ins import PIN, Key, lost, run

from replug.agent.clients.peer import Peer
from replug.agent.commands.main import main
from replug.agent.control.client import control_path
from replug.protocol.messages import Lock, SignResponse


def test_forgetting_pins(rig: ControlRig) -> None:
    async def main() -> None:
        await rig.control.start()
        await rig.agent.add()
        pin = rig.agent.remembered(rig.agent.slots.tokens[0])
        status, out, _ = await rig.replug("forget")
        assert (status, out.startswith("1 PIN")) == (0, True)
        assert pin is not None
        assert pin.value == b""
        assert await rig.agent.listed() == ["login"]
        await rig.control.close()

    run(main())


def test_no_pin_can_be_asked_for(rig: ControlRig) -> None:
    async def main() -> None:
        await rig.control.start()
        await rig.agent.add()
        _, out, _ = await rig.replug("status", "--json")
        assert PIN.decode() not in out
        await rig.control.close()

    run(main())


def test_keys_made_and_deleted_elsewhere(rig: ControlRig) -> None:
    """They are seen after a refresh, which costs no PIN, and after the next login."""

    async def main() -> None:
        await rig.control.start()
        agent = rig.agent
        await agent.add()
        [token] = agent.slots.tokens
        token.keys.append(Key("new"))
        logins = len(agent.slots.logins)
        assert await rig.replug("refresh") == (0, 'token "work" (serial 1): 2 keys (1 new)\n', "")
        assert await agent.listed() == ["login", "new"]
        del token.keys[0]
        assert await rig.replug("refresh") == (0, 'token "work" (serial 1): 1 key (1 gone)\n', "")
        assert await agent.listed() == ["new"]
        assert len(agent.slots.logins) == logins

        token.keys.append(Key("newer"))
        assert isinstance(await agent.sign(token.keys[0]), SignResponse)
        assert await agent.listed() == ["new", "newer"]
        assert len(agent.slots.logins) == logins + 1
        await rig.control.close()

    run(main())


def test_a_token_that_cannot_be_refreshed(rig: ControlRig) -> None:
    async def main() -> None:
        await rig.control.start()
        assert await rig.replug("refresh") == (0, "No token is plugged in.\n", "")
        await rig.agent.add()
        rig.agent.slots.fail_next("open", lost(), lost())
        status, out, err = await rig.replug("refresh")
        assert (status, out) == (1, "")
        assert "failed twice" in err
        await rig.agent.ask(Lock(b"passphrase"))
        status, out, err = await rig.replug("refresh")
        assert (status, out, err) == (1, "", "replug: the agent is locked: unlock it with ssh-add -X\n")
        await rig.control.close()

    run(main())


# Without an agent, or without the right one.


def failed_to_ask(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["status"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_without_an_agent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in (None, ""):
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        if value is not None:
            monkeypatch.setenv("SSH_AUTH_SOCK", value)
        assert failed_to_ask(capsys) == (
            f"replug: SSH_AUTH_SOCK is not set, and no agent listens in {tmp_path};"
            " replug doctor suggests a fix\n"
        )


def test_an_agent_that_is_not_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = str(tmp_path / "agent")
    monkeypatch.setenv("SSH_AUTH_SOCK", path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert failed_to_ask(capsys) == (
        f"replug: no replug-agent answers at {path}.control: No such file or directory;"
        " replug doctor suggests a fix\n"
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "the agent's answer is malformed"),
        (b"{", "the agent's answer is malformed"),
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
        assert words in await asyncio.to_thread(failed_to_ask, capsys)

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
        assert "another user's" in failed_to_ask(capsys)


def test_nothing_heavy_is_loaded_before_a_command_runs() -> None:
    code = "import sys; from replug.agent.commands import main; main.make_parser(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"asyncio", "cryptography", "paramiko", "pyudev", "platformdirs", "tomllib", "importlib.metadata"}
    assert heavy & set(loaded.split()) == set()


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    for given in (["-V"], ["--version"], ["status", "--version"], ["config", "show", "--version"]):
        with pytest.raises(SystemExit, match=r"^0$"):
            main(given)
        assert capsys.readouterr().out == f"replug {version('replug')}\n"


def test_an_interrupt_ends_it_as_shells_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("replug.agent.commands.status.run", interrupt)
    assert main(["status"]) == 130


# The manners of a command line.


def test_alone_it_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    alone = capsys.readouterr()
    for given in (["help"], ["--help"]):
        with pytest.raises(SystemExit, match=r"^0$"):
            main(given)
        assert capsys.readouterr() == alone
    assert alone.out.startswith("usage: replug ")


@pytest.mark.parametrize("words", [["status"], ["config"], ["config", "show"]])
def test_help_on_a_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["help", *words])
    helped = capsys.readouterr()
    with pytest.raises(SystemExit, match=r"^0$"):
        main([*words, "--help"])
    assert capsys.readouterr() == helped
    assert helped.out.startswith(f"usage: replug {' '.join(words)} ")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("statsu", "replug: error: unknown command 'statsu'; did you mean status?"),
        ("help lgos", "replug: error: unknown command 'lgos'; did you mean logs?"),
        ("zzz", "replug: error: unknown command 'zzz'"),
        ("config chek", "replug config: error: unknown command 'chek'; did you mean check?"),
        ("status --jsno", "replug status: error: unrecognized arguments: --jsno; did you mean --json?"),
        ("setup --removed", "replug setup: error: unrecognized arguments: --removed; did you mean --remove?"),
        ("forget me", "replug forget: error: unrecognized arguments: me"),
    ],
)
def test_what_was_meant(given: str, error: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(given.split())
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[-1]) == ("", error)
    assert err.startswith("usage: replug")
