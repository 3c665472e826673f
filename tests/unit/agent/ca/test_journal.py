"""The journal: a line is on the disk before anything is issued, or nothing is."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from doubles.certificate_bodies import user_certificate
from doubles.stand_ins import Key, run

from replug.agent.ca import journal
from replug.agent.ca.journal import Issued, Journal, issued, older, read_journal
from replug.agent.keys.refusal import RequestRefusedError
from replug.protocol.keys import fingerprint

CA = Key()


def line(serial: int = 7, **changes: object) -> Issued:
    made = user_certificate(CA, "root", "web", serial=serial, **changes)
    return issued(made, 'token "ca"', user="alice", uid=1000, program="ssh-keygen (pid 1)")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "replug" / "issued.jsonl"


def test_what_is_written_is_read(path: Path) -> None:
    first, second = line(1), replace(line(2, key_id=b"odd \n\xff\x1b"), destination="web (SHA256:x)")

    async def main() -> None:
        its = Journal(lambda: path)
        await its.append(first)
        await its.append(second)

    run(main())
    assert list(read_journal(path)) == [first, second]
    assert (first.ca, first.serial, first.principals) == (fingerprint(CA.blob), 1, ("root", "web"))
    assert second.key_id == "odd \n\udcff\x1b"
    assert path.read_bytes().count(b"\n") == 2
    assert path.read_bytes().isascii()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_does_not_fit_into_memory_makes_room(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(1 << 42)

    run(Journal(lambda: path).append(line()))

    assert len(path.read_bytes().splitlines()) == 1
    assert older(path).stat().st_size == 1 << 42


def test_lines_are_counted_over_all_of_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MOST_LINES", 3)
    monkeypatch.setattr(journal, "_PIECE", 100)

    for number in range(4):
        run(Journal(lambda: path).append(line(number)))  # one after the other, as if restarted

    assert [len(file.read_bytes().splitlines()) for file in (older(path), path)] == [3, 1]


@pytest.mark.parametrize("half", [b'{"time": 1', b"\0" * 512])
def test_what_a_loss_of_power_has_left_does_not_spoil_the_next_line(path: Path, half: bytes) -> None:
    its = Journal(lambda: path)
    run(its.append(line(1)))
    with path.open("ab") as file:
        file.write(half)

    for number in (2, 3):
        run(its.append(line(number)))

    assert [entry.serial for entry in read_journal(path)] == [1, 2, 3]


def test_it_is_on_the_disk_when_append_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    its = Journal(lambda: path)
    run(its.append(line()))
    assert synced == [str(path), str(path.parent)]


def test_those_that_come_at_once_have_a_line_each(path: Path) -> None:
    async def main() -> None:
        its = Journal(lambda: path)
        # As two agents of one user would.
        other = Journal(lambda: path)
        await asyncio.gather(*(one.append(line(n)) for n in range(6) for one in (its, other)))

    run(main())
    assert sorted(one.serial for one in read_journal(path)) == sorted([*range(6)] * 2)


def test_half_a_line_is_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    async def main() -> None:
        its = Journal(lambda: path)
        await its.append(line(1))
        monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:20]))
        with pytest.raises(RequestRefusedError, match=r"cannot be recorded .*No space left on device"):
            await its.append(line(2))
        monkeypatch.setattr(os, "write", write)
        await its.append(line(3))

    run(main())
    assert [one.serial for one in read_journal(path)] == [1, 3]
    assert path.read_bytes().count(b"\n") == 2


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RequestRefusedError) as refused:
        run(Journal(lambda: path).append(line()))
    assert refused.value.reason.endswith(os.strerror(errno.ELOOP))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("obstacle", ["a file for a folder", "a folder for a file"])
def test_what_cannot_be_written_is_said(path: Path, obstacle: str) -> None:
    if obstacle == "a file for a folder":
        path.parent.parent.mkdir()
        path.parent.touch()
    else:
        path.mkdir(parents=True)
    with pytest.raises(RequestRefusedError, match="the certificate cannot be recorded") as refused:
        run(Journal(lambda: path).append(line()))
    assert refused.value.next_step


def test_a_disk_that_does_not_answer_is_not_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_PATIENCE", 0.01)
    reading, writing = os.pipe()

    def hangs() -> Path:
        os.read(reading, 1)
        return path

    try:
        with pytest.raises(RequestRefusedError, match="the disk does not answer"):
            run(Journal(hangs).append(line()))
    finally:
        os.write(writing, b"x")


def test_a_full_file_becomes_the_older_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MOST_LINES", 3)

    async def main() -> None:
        for number in range(4):
            await Journal(lambda: path).append(line(number))  # each counts what it finds
        its = Journal(lambda: path)
        for number in range(4, 8):
            await its.append(line(number))

    run(main())
    assert [one.serial for one in read_journal(path)] == [3, 4, 5, 6, 7]
    assert older(path).read_bytes().count(b"\n") == 3
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_no_line_is_left_out(path: Path) -> None:
    run(Journal(lambda: path).append(line()))
    good = path.read_bytes()
    odd = [b"", b"{", b"[]", b"{}", b'"x"', b"\xff", b"[" * 9000]
    wrong = [
        ("time", "yesterday"), ("time", float("nan")), ("time", 1e300), ("time", -1e18), ("time", True),
        ("serial", 2**64), ("serial", []), ("valid_before", 10**30), ("valid_before", None),
        ("ca_key", None), ("ca_key", 5), ("key_id", {}), ("principals", 5), ("user", None),
    ]  # fmt: skip
    odd += [json.dumps(json.loads(good) | {name: value}).encode() for name, value in wrong]
    path.write_bytes(b"\n".join([*odd, good]))
    assert [one.serial for one in read_journal(path)] == [7]


def test_without_a_file_there_is_nothing(path: Path) -> None:
    assert list(read_journal(path)) == []
