"""The helper's process: what it is given, and how it ends."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from doubles.stand_ins import ended, run

from replug.token.errors import TokenError, WorkerLostError, WorkerSilentError
from replug.token.security_keys.helper import SkHelper

ANSWER = "printf '\\000\\000\\000\\002ok'"


def helper(folder: Path, does: str, **environment: str) -> SkHelper:
    path = folder / "helper"
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o700)
    return SkHelper({"PATH": os.environ["PATH"], "SSH_SK_HELPER": str(path), **environment})


def ask(helper: SkHelper, patience: float = 20) -> tuple[bytes, str]:
    return run(helper.ask(bytearray(b"request "), bytearray(b"1234"), patience))


def test_it_gets_request_and_pin_and_a_clean_environment(tmp_path: Path) -> None:
    (tmp_path / "heard").touch()
    made = helper(
        tmp_path,
        f"head -c 12 >{tmp_path}/heard; env >{tmp_path}/env; ls -l /proc/$$/fd >{tmp_path}/fds; {ANSWER}",
        HOME="/home/me",
        SSH_AUTH_SOCK="/agent",
        LD_PRELOAD="",
    )

    assert ask(made) == (b"ok", "")

    assert (tmp_path / "heard").read_bytes() == b"request 1234"
    environment = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert environment["HOME"] == "/home/me"
    assert not {"SSH_AUTH_SOCK", "SSH_SK_HELPER", "LD_PRELOAD"} & environment.keys()
    open_files = (tmp_path / "fds").read_text().split("\n")
    assert sum("socket:" in line for line in open_files) == 2
    assert sum("pipe:" in line for line in open_files) == 1


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("kill -9 $$", "ssh-sk-helper gave no answer: it was ended by SIGKILL"),
        ("exit 255", "ssh-sk-helper gave no answer: it ended with status 255"),
        ("echo first >&2; echo the last >&2; exit 1", 'it ended with status 1 ("the last")'),
        ("printf '\\000\\000\\000\\011ok'", "it ended with status 0"),
        ("printf '\\177\\000\\000\\011ok'; exit 7", "it ended with status 7"),
    ],
)
def test_why_there_is_no_answer(tmp_path: Path, does: str, why: str) -> None:
    with pytest.raises(WorkerLostError) as caught:
        ask(helper(tmp_path, does))
    assert why in str(caught.value)


def test_one_that_hangs_is_ended_with_what_it_has_started(tmp_path: Path) -> None:
    made = helper(tmp_path, f"trap '' TERM; sleep 600 & echo $! $$ >{tmp_path}/pids; wait")

    with pytest.raises(WorkerSilentError, match=r"did not answer within 0\.5 s"):
        ask(made, 0.5)

    assert_ended(tmp_path)


def test_it_is_ended_with_the_request(tmp_path: Path) -> None:
    made = helper(tmp_path, f"echo $$ >{tmp_path}/pids; exec sleep 600")

    async def main() -> None:
        asking = asyncio.create_task(made.ask(bytearray(), bytearray(), 60))
        pids = tmp_path / "pids"
        while not pids.exists() or not pids.read_text():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    run(main())
    assert_ended(tmp_path)


def assert_ended(folder: Path) -> None:
    """Soon: one whose request ends while it is being started is ended by the thread that starts it."""
    for pid in (folder / "pids").read_text().split():
        run(ended(int(pid)))


@pytest.mark.parametrize(
    ("mode", "why"), [(None, "ssh-sk-helper was not found"), (0o600, "does not start: Permission denied")]
)
def test_one_that_does_not_start(tmp_path: Path, mode: int | None, why: str) -> None:
    path = tmp_path / "helper"
    if mode is not None:
        path.touch(mode)
    with pytest.raises(TokenError, match=why) as caught:
        ask(SkHelper({"SSH_SK_HELPER": str(path)}))
    assert "set SSH_SK_HELPER" in caught.value.next_step
