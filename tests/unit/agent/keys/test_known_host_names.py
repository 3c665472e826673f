"""known_hosts as the agent reads it: what is new, gone, unreadable, hostile or on a dead file system."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import pwd
import threading
from pathlib import Path

import pytest
from doubles.stand_ins import Key, run

from replug.agent.keys import known_host_names
from replug.agent.keys.known_host_names import KnownHostNames, default_files
from replug.protocol.known_hosts import KnownAs

HOST = Key()


def line(hosts: str) -> str:
    return f"{hosts} ssh-ed25519 {base64.b64encode(HOST.blob).decode()}\n"


def test_nothing_is_said_before_the_first_look(tmp_path: Path) -> None:
    async def main() -> None:
        names = KnownHostNames(lambda: [str(tmp_path / "known_hosts")])
        assert names.known_as(HOST.blob) is None
        await names.look()
        assert names.known_as(HOST.blob) == KnownAs()

    run(main())


def test_new_changed_and_gone(tmp_path: Path) -> None:
    async def main() -> None:
        users, systems = tmp_path / "known_hosts", tmp_path / "ssh_known_hosts"
        names = KnownHostNames(lambda: [str(users), str(systems)])
        systems.write_text(line("system"))
        await names.look()
        assert names.known_as(HOST.blob) == KnownAs(("system",))
        users.write_text(line("first"))
        await names.look()
        assert names.known_as(HOST.blob) == KnownAs(("first", "system"))
        with users.open("a") as file:
            file.write(line("second"))
        await names.look()
        assert names.known_as(HOST.blob) == KnownAs(("first", "second", "system"))
        systems.unlink()
        users.unlink()
        await names.look()
        assert names.known_as(HOST.blob) == KnownAs()

    run(main())


def test_what_has_not_changed_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        path = tmp_path / "known_hosts"
        path.write_text(line("server"))
        names = KnownHostNames(lambda: [str(path)])
        await names.look()
        monkeypatch.setattr(known_host_names, "read_regular_file", None)
        await names.look()
        assert names.known_as(HOST.blob) == KnownAs(("server",))

    run(main())


def test_what_cannot_be_read_is_said_once_and_makes_the_rest_uncertain(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A FIFO that somebody holds, a folder, a huge file, a name that is none, a loop of links."""

    async def main() -> None:
        good, other = tmp_path / "good", Key()
        good.write_text(line("server"))
        os.mkfifo(tmp_path / "fifo")
        writer = os.open(tmp_path / "fifo", os.O_RDWR)
        (tmp_path / "folder").mkdir()
        (tmp_path / "huge").write_bytes(b"#" * (4 * 1024 * 1024 + 1))
        (tmp_path / "loop").symlink_to("loop")
        for bad in ("fifo", "folder", "huge", "nul\0", "loop"):
            caplog.clear()
            names = KnownHostNames(lambda bad=bad: [str(tmp_path / bad), str(good)])  # type: ignore[misc]
            with caplog.at_level(logging.WARNING):
                await names.look()
                await names.look()
            assert [record.__dict__["path"] for record in caplog.records] == [str(tmp_path / bad)]
            assert names.known_as(HOST.blob) == KnownAs(("server",))
            assert names.known_as(other.blob) is None
        os.close(writer)

    run(main())


def test_a_folder_that_does_not_exist_is_no_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        (tmp_path / "file").touch()
        paths = [str(tmp_path / "none" / "known_hosts"), str(tmp_path / "file" / "known_hosts")]
        names = KnownHostNames(lambda: paths)
        await names.look()
        assert names.known_as(HOST.blob) == KnownAs()
        assert caplog.records == []

    run(main())


def test_a_file_system_that_does_not_answer_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one thread only: others need theirs."""

    async def main() -> None:
        path, answered, asked = tmp_path / "known_hosts", threading.Event(), list[str]()
        path.write_text(line("server"))

        def hang() -> list[str]:
            asked.append(str(path))
            answered.wait(20)
            return [str(path)]

        monkeypatch.setattr(known_host_names, "_PATIENCE", 0.01)
        names = KnownHostNames(hang)
        for _ in range(5):
            await names.look()
        assert asked == [str(path)]
        assert names.known_as(HOST.blob) is None
        answered.set()
        async with asyncio.timeout(10):
            while names.known_as(HOST.blob) is None:
                await names.look()

    run(main())


def test_where_ssh_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere/else")
    home = pwd.getpwuid(os.getuid()).pw_dir
    assert default_files() == [
        f"{home}/.ssh/known_hosts",
        f"{home}/.ssh/known_hosts2",
        "/etc/ssh/ssh_known_hosts",
        "/etc/ssh/ssh_known_hosts2",
    ]
