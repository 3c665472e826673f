"""systemd's password agents: what stands in their folder, and whose answer counts."""

from __future__ import annotations

import asyncio
import configparser
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.screen import Screen
from doubles.stand_ins import run
from rigs.lingering import lingering
from rigs.root import AS_ROOT
from rigs.terminal import eventually

from replug.token.errors import NobodyAskedError, PromptError
from replug.token.identity import TokenFlag, TokenId
from replug.token.pins.pin import Pin
from replug.token.prompts.password_agent import PasswordAgentPrompter
from replug.token.prompts.request import Asker, ConfirmRequest, PinRequest

TOKEN = TokenId("Maker", "Model", "5001234", "work")
ASKER = Asker("ssh (pid 4711)", purpose=("login at host example.org",))
REQUEST = PinRequest(TOKEN, TokenFlag.USER_PIN_FINAL_TRY, "login key", ASKER)
CONFIRM = ConfirmRequest("login key", "SHA256:abc", ASKER)
MESSAGE = (
    'PIN for token "work" (serial 5001234), LAST TRY: a wrong PIN locks the token, '
    "to use the key login key, login at host example.org, asked for by ssh (pid 4711):"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's tmp_path: socket paths in it must fit 108 bytes.
    home = Path(tempfile.mkdtemp(prefix="rp-"))
    yield home / "systemd" / "ask-password"
    shutil.rmtree(home)


class Agent:
    """A password agent that answers as it is told to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def question(self) -> dict[str, str]:
        """The question, once one stands."""
        async with asyncio.timeout(15):
            while not (files := list(self._folder.glob("ask.*"))):  # noqa: ASYNC110 - its folder is new
                await asyncio.sleep(0.001)
        parser = configparser.RawConfigParser()
        parser.optionxform = str  # type: ignore[assignment]
        parser.read_string(files[0].read_text())
        assert parser.sections() == ["Ask"]
        return dict(parser["Ask"])

    async def answers(self, *answers: bytes) -> dict[str, str]:
        """Answer the question; it."""
        question = await self.question()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            for answer in answers:
                sender.sendto(answer, question["Socket"])
        return question


def answered(folder: Path, *answers: bytes) -> tuple[Pin, dict[str, str]]:
    async def main() -> tuple[Pin, dict[str, str]]:
        asking = asyncio.create_task(PasswordAgentPrompter(folder, 15).ask(REQUEST))
        question = await Agent(folder).answers(*answers)
        return await asking, question

    return run(main())


def test_a_descriptor_that_comes_with_an_answer_stops_nobody(folder: Path) -> None:
    """The last to close a socket waits for as long as it is said to linger."""

    async def main() -> None:
        asking = asyncio.create_task(PasswordAgentPrompter(folder, 15).ask(REQUEST))
        question = await Agent(folder).question()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, lingering() as one:
            sender.connect(question["Socket"])
            socket.send_fds(sender, [b"+123456"], [one.fileno()])
            one.close()
            begun = time.monotonic()
            with pytest.raises(NobodyAskedError):
                await asking
            assert time.monotonic() - begun < 2

    run(main())


def test_the_question(folder: Path) -> None:
    before = time.monotonic_ns() // 1000
    _, question = answered(folder, b"+123456")
    until = int(question.pop("NotAfter"))
    assert before + 15_000_000 <= until <= time.monotonic_ns() // 1000 + 15_000_000
    assert Path(question.pop("Socket")).parent == folder
    assert question == {
        "PID": str(os.getpid()),
        "AcceptCached": "0",
        "Echo": "0",
        "Icon": "dialog-password",
        "Id": "replug:5001234",
        "Message": MESSAGE,
    }


@pytest.mark.parametrize(
    ("answers", "pin"),
    [
        ([b"+123456"], b"123456"),
        ([b"+123456\0"], b"123456"),
        ([b"+123456\0another\0"], b"123456"),
        ([b"", b"?what", b"+123456"], b"123456"),
        ([b"+123456", b"-"], b"123456"),
        ([b"+" + b"1" * 255], b"1" * 255),
    ],
)
def test_the_first_answer_is_the_pin(folder: Path, answers: list[bytes], pin: bytes) -> None:
    typed, _ = answered(folder, *answers)
    assert typed.value == pin
    assert typed.last_try_known


@pytest.mark.parametrize("answer", [b"-", b"+", b"+\0", b"-123456"])
def test_cancelled(folder: Path, answer: bytes) -> None:
    with pytest.raises(PromptError, match="the PIN prompt was cancelled"):
        answered(folder, answer)


@pytest.mark.parametrize("length", [256, 300, 100_000])
def test_a_pin_that_is_too_long_is_none(folder: Path, length: int) -> None:
    with pytest.raises(PromptError, match="too long"):
        answered(folder, b"+" + b"1" * length)


def taken_away(folder: Path) -> None:
    """Waits until no question stands: a thread removes it, and a cancelled caller does not wait for that."""
    eventually(lambda: list(folder.iterdir()) == [], "the question is taken away")


def test_nothing_is_left_behind(folder: Path) -> None:
    answered(folder, b"+123456")
    taken_away(folder)


def test_no_answer_in_time(folder: Path) -> None:
    with pytest.raises(PromptError, match=r"no PIN was entered within 0\.2 s"):
        run(PasswordAgentPrompter(folder, 0.2).ask(REQUEST))
    taken_away(folder)


def test_a_question_that_nobody_waits_for_any_more_is_taken_away(folder: Path) -> None:
    async def main() -> None:
        asking = asyncio.create_task(PasswordAgentPrompter(folder, 15).ask(REQUEST))
        await Agent(folder).question()
        asking.cancel()
        await asyncio.wait([asking])

    run(main())
    taken_away(folder)


SEND_AS_ANOTHER_USER = """
import os, socket, sys
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.connect(sys.argv[1])  # root may; a socket keeps what it could reach
os.setuid(65534)
sender.send(b"+654321")
"""


def test_another_user_does_not_answer(folder: Path) -> None:
    async def main() -> Pin:
        asking = asyncio.create_task(PasswordAgentPrompter(folder, 15).ask(REQUEST))
        question = await Agent(folder).question()
        command = [*AS_ROOT, sys.executable, "-c", SEND_AS_ANOTHER_USER, question["Socket"]]
        await asyncio.to_thread(subprocess.run, command, check=True)
        await Agent(folder).answers(b"+123456")
        return await asking

    assert run(main()).value == b"123456"


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("long" * 30)):
        with pytest.raises(NobodyAskedError, match="cannot be used"):
            run(PasswordAgentPrompter(folder, 15).ask(REQUEST))


def test_a_permission_is_nothing_they_can_be_asked_for(folder: Path) -> None:
    with pytest.raises(NobodyAskedError, match="cannot ask for a yes or no"):
        run(PasswordAgentPrompter(folder, 15).confirm(CONFIRM))


@pytest.mark.parametrize("label", ["a\\", "a\nSocket=/evil", "[Ask]", '"'])
def test_a_token_cannot_write_lines_of_the_file(folder: Path, label: str) -> None:
    token = TokenId("Maker", "Model", "1\nPID=1", label)
    request = PinRequest(token, TokenFlag(0), label, Asker(label, purpose=("a\\",)))

    async def main() -> dict[str, str]:
        asking = asyncio.create_task(PasswordAgentPrompter(folder, 15).ask(request))
        question = await Agent(folder).answers(b"+123456")
        await asking
        return question

    question = run(main())
    assert question["PID"] == str(os.getpid())
    assert question["Message"].endswith(":")
    assert len(question) == 8


def test_the_agent_of_systemd(folder: Path, screen: Screen) -> None:
    """systemd-tty-ask-password-agent, in a mount namespace in which it finds our folder where it looks."""

    async def main() -> Pin:
        asking = asyncio.create_task(PasswordAgentPrompter(folder, 60).ask(REQUEST))
        await Agent(folder).question()
        script = (
            "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/ask-password && "
            f"mount --bind {folder} /run/systemd/ask-password && exec systemd-tty-ask-password-agent --query"
        )
        with subprocess.Popen(
            ["unshare", "--mount", "--map-root-user", "setsid", "--ctty", "sh", "-c", script],
            stdin=screen.keyboard,
            stdout=screen.keyboard,
            stderr=screen.keyboard,
        ) as agent:
            await screen.shows("asked for by ssh (pid 4711):")
            screen.type("123456\r")
            pin = await asking
            agent.wait(15)
        return pin

    assert run(main()).value == b"123456"
