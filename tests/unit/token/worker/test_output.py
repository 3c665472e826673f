"""What modules print: few lines of the log, whatever they write."""

from __future__ import annotations

import asyncio
import logging
import os

import pytest
from doubles.stand_ins import run

from replug.token.worker.output import ModuleOutput

PATH = "/usr/lib/module.so"


def logged(caplog: pytest.LogCaptureFixture, *pieces: bytes) -> list[str | int]:
    """The lines, and the numbers of those left out, of a module that writes these pieces and ends."""

    async def main() -> None:
        output = ModuleOutput(PATH)
        descriptor = output.new_pipe()
        for piece in pieces:
            await asyncio.to_thread(write_all, descriptor, piece)
            await asyncio.sleep(0)
        os.close(descriptor)
        while output._pipes:  # noqa: ASYNC110 - nobody announces the end
            await asyncio.sleep(0.001)

    with caplog.at_level(logging.INFO, "replug.token.worker.output"):
        run(main())
    fields = [vars(record) for record in caplog.records]
    assert all(one["path"] == PATH for one in fields)
    return [one["line"] if "line" in one else one["lines"] for one in fields]


def write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def test_lines_however_they_come(caplog: pytest.LogCaptureFixture) -> None:
    assert logged(caplog, b"one\ntw", b"o\n\n", b"  three\r\nfour") == ["one", "two", "three", "four"]


def test_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert logged(caplog) == []


def test_what_is_no_text(caplog: pytest.LogCaptureFixture) -> None:
    assert logged(caplog, b"\xff\xfe\n") == ["\ufffd\ufffd"]


def test_a_long_line_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    assert logged(caplog, b"x" * 200_000, b"\nnext\n") == ["x" * 300 + "...", "next"]


def test_many_lines_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    lines = logged(caplog, *[b"line\n" * 10_000] * 3)
    assert lines[:20] == ["line"] * 20
    assert len(lines) < 30
    assert any(isinstance(line, int) and line > 1000 for line in lines)


def test_a_process_that_is_left_behind_keeps_no_descriptor(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        output = ModuleOutput(PATH)
        kept = [output.new_pipe() for _ in range(20)]
        assert len(output._pipes) < 5
        output.close()
        assert output._pipes == []
        for descriptor in kept:
            os.close(descriptor)

    run(main())
