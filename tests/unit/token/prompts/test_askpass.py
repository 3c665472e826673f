"""Asking for a PIN through SSH_ASKPASS: the answer, every way to get none, and what the user is told."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from doubles.stand_ins import ended, run

from replug.token.errors import NobodyAskedError, PromptError, Rejection, TokenError
from replug.token.identity import TokenFlag, TokenId
from replug.token.pins.pin import Pin
from replug.token.prompts.askpass import AskpassPrompter, _read_line
from replug.token.prompts.request import Asker, ConfirmRequest, PinRequest

TOKEN = TokenId("Maker", "Model", "5001234", "work")
REQUEST = PinRequest(TOKEN, TokenFlag.LOGIN_REQUIRED, "login key", Asker("ssh (pid 4711)"))
NAME = 'token "work" (serial 5001234)'

_TRACES = """
import ctypes, os, sys, time
while not (os.path.exists(sys.argv[1]) and (pid := open(sys.argv[1]).read())):
    time.sleep(0.01)
print(ctypes.CDLL(None).ptrace(0x4206, int(pid), 0, 0), flush=True)  # PTRACE_SEIZE
time.sleep(10)
"""

Askpass = Callable[..., AskpassPrompter]


@pytest.fixture
def askpass(tmp_path: Path) -> Askpass:
    """A prompter whose askpass program is this shell script."""

    def prompter(body: str, timeout: float = 15, **environment: str) -> AskpassPrompter:
        program = tmp_path / "askpass"
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o700)
        environment = {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force", **environment}
        return AskpassPrompter(environment, timeout)

    return prompter


def ask(prompter: AskpassPrompter, request: PinRequest = REQUEST) -> Pin:
    return run(prompter.ask(request))


@pytest.mark.parametrize(
    ("output", "pin"),
    [
        ("123456\\n", b"123456"),
        ("123456", b"123456"),
        ("123456\\r\\n", b"123456"),
        ("123456\\nand more\\n", b"123456"),
        (" 12 56 \\n", b" 12 56 "),
        ("\\303\\244\\377", b"\xc3\xa4\xff"),
    ],
)
def test_the_first_line_is_the_answer(askpass: Askpass, output: str, pin: bytes) -> None:
    entered = ask(askpass(f"printf '{output}'"))
    assert entered.value == pin
    assert (entered.verified, entered.sent) == (False, False)


def test_an_answer_may_come_in_pieces(askpass: Askpass) -> None:
    assert ask(askpass("printf 123; sleep 0.05; printf '456\\n'")).value == b"123456"


def test_the_question_is_its_argument(askpass: Askpass, tmp_path: Path) -> None:
    ask(askpass(f'printf "%s|%s" "$#" "$1" >{tmp_path}/question; echo 123456'))
    assert (tmp_path / "question").read_text() == f"1|{REQUEST.text()}"


@pytest.mark.parametrize("body", ["exit 1", "echo 123456; exit 1", "exit 0", "echo", "kill -9 $$"])
def test_without_an_answer_it_was_cancelled(askpass: Askpass, body: str) -> None:
    with pytest.raises(TokenError) as caught:
        ask(askpass(body))
    assert str(caught.value) == f"{NAME}: the PIN prompt was cancelled; try again and enter the PIN"


@pytest.mark.parametrize("body", ["head -c 300 /dev/zero | tr '\\0' 1", "yes | tr -d '\\n'"])
def test_an_answer_that_is_too_long_is_none(askpass: Askpass, body: str) -> None:
    """Cut short it would be a wrong PIN, and cost a try."""
    with pytest.raises(TokenError):
        ask(askpass(body))


@pytest.mark.parametrize("timeout", [15, 0.5], ids=["it ends", "it is ended"])
def test_one_that_another_program_traces_keeps_nobody_waiting(
    askpass: Askpass, tmp_path: Path, timeout: float
) -> None:
    """What is traced is not gone after its end, until that program lets go of it."""
    command = [sys.executable, "-c", _TRACES, tmp_path / "pid"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tracer:
        longest_turn = 0.0

        async def main() -> None:
            nonlocal longest_turn
            prompt = asyncio.create_task(
                askpass(f"echo $$ >{tmp_path}/pid; exec sleep 1", timeout).ask(REQUEST)
            )
            while not prompt.done():
                began = time.monotonic()
                await asyncio.sleep(0.01)
                longest_turn = max(longest_turn, time.monotonic() - began)
            with pytest.raises(PromptError):
                await prompt

        run(main())
        tracer.kill()
        assert tracer.stdout
        if tracer.stdout.read() != "0\n":
            pytest.skip("no program may trace another here")
    assert longest_turn < 0.5


def test_a_prompt_that_stands_too_long_is_closed(askpass: Askpass, tmp_path: Path) -> None:
    with pytest.raises(TokenError) as caught:
        ask(askpass(f"echo $$ >{tmp_path}/pid; exec sleep 60", timeout=1))
    assert caught.value.reason == f"{NAME}: no PIN was entered within 1 s"
    assert_gone(tmp_path / "pid")


def test_a_prompt_that_answers_but_does_not_end_is_closed_too(askpass: Askpass, tmp_path: Path) -> None:
    with pytest.raises(TokenError, match=r"no PIN was entered within 1 s"):
        ask(askpass(f"echo $$ >{tmp_path}/pid; echo 123456; exec sleep 60", timeout=1))
    assert_gone(tmp_path / "pid")


@pytest.mark.parametrize("ending", ["exec sleep 60", "exit 1"])
def test_an_answer_that_does_not_count_is_wiped(
    askpass: Askpass, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    answers = []

    async def read_line(process: subprocess.Popen[bytes]) -> bytearray:
        answers.append(await _read_line(process))
        assert answers[0] == b"123456"
        return answers[0]

    monkeypatch.setattr("replug.token.prompts.askpass._read_line", read_line)
    with pytest.raises(PromptError):
        ask(askpass(f"echo 123456; {ending}", timeout=1))
    assert answers == [bytes(6)]


def test_a_prompt_that_nobody_waits_for_any_more_is_closed(askpass: Askpass, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    async def main() -> None:
        asking = asyncio.create_task(askpass(f"echo $$ >{fifo}; exec sleep 60").ask(REQUEST))
        pid = int(await asyncio.to_thread(fifo.read_text))
        asking.cancel()
        await asyncio.wait([asking])
        await ended(pid)

    run(main())


def test_a_dialog_that_a_script_has_started_is_closed_with_the_script(
    askpass: Askpass, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    async def main() -> None:
        asking = asyncio.create_task(askpass(f"sleep 60 & echo $! >{fifo}; wait").ask(REQUEST))
        pid = int(await asyncio.to_thread(fifo.read_text))
        asking.cancel()
        await asyncio.wait([asking])
        await ended(pid)

    run(main())


def assert_gone(pid_file: Path) -> None:
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), signal.SIG_DFL)


@pytest.mark.parametrize("program", ["/nonexistent/askpass", "/dev/null", "/"])
def test_a_prompt_that_does_not_start(program: str) -> None:
    prompter = AskpassPrompter({"SSH_ASKPASS": program, "DISPLAY": ":0"}, 15)
    with pytest.raises(TokenError) as caught:
        ask(prompter)
    assert str(caught.value).startswith(f"{program} does not start: ")
    assert caught.value.next_step == "set SSH_ASKPASS to a program that asks"
    with pytest.raises(NobodyAskedError, match=f"{program} cannot be run"):
        prompter.check()


@pytest.mark.parametrize(
    ("environment", "asks"),
    [
        ({"DISPLAY": ":0"}, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True),
        ({"SSH_ASKPASS_REQUIRE": "force"}, True),
        ({"SSH_ASKPASS_REQUIRE": "prefer", "DISPLAY": ":0"}, True),
        ({}, False),
        ({"DISPLAY": ""}, False),
        ({"SSH_ASKPASS_REQUIRE": "prefer"}, False),
        ({"SSH_ASKPASS_REQUIRE": "never", "DISPLAY": ":0"}, False),
    ],
)
def test_the_environment_decides_whether_to_ask(
    environment: Mapping[str, str], asks: bool, tmp_path: Path
) -> None:
    program = tmp_path / "askpass"
    program.write_text("#!/bin/sh\necho 123456\n")
    program.chmod(0o700)
    prompter = AskpassPrompter({"SSH_ASKPASS": str(program), **environment}, 15)
    if asks:
        prompter.check()
        assert ask(prompter).value == b"123456"
    else:
        for asking in (prompter.check, lambda: ask(prompter)):
            with pytest.raises(NobodyAskedError, match=r"there is no display|SSH_ASKPASS_REQUIRE is never"):
                asking()


@pytest.mark.parametrize(
    ("flags", "known"),
    [(TokenFlag.USER_PIN_FINAL_TRY, True), (TokenFlag.USER_PIN_COUNT_LOW, False), (TokenFlag(0), False)],
)
def test_a_pin_typed_at_the_warning_knows_of_the_last_try(
    askpass: Askpass, flags: TokenFlag, known: bool
) -> None:
    request = PinRequest(TOKEN, flags, "", Asker())
    assert ask(askpass("echo 123456"), request).last_try_known is known


FINAL_TRY = TokenFlag.USER_PIN_FINAL_TRY
COUNT_LOW = TokenFlag.USER_PIN_COUNT_LOW
MORE_THAN_ONE = "The token reports that more than one try is left."


@pytest.mark.parametrize(
    ("request_", "lines"),
    [
        (PinRequest(TOKEN, TokenFlag(0), "", Asker()), []),
        (REQUEST, ["to use the key login key", "asked for by ssh (pid 4711)"]),
        (
            PinRequest(TOKEN, TokenFlag(0), "", Asker(), rejection=Rejection.REMEMBERED),
            ["The PIN remembered until now was rejected."],
        ),
        (
            PinRequest(TOKEN, COUNT_LOW, "", Asker()),
            ["A wrong PIN was entered since the last right one.", MORE_THAN_ONE],
        ),
        (PinRequest(TOKEN, TokenFlag(0), "", Asker(), rejection=Rejection.WRONG), ["Wrong PIN."]),
        (
            PinRequest(TOKEN, COUNT_LOW, "", Asker(), rejection=Rejection.WRONG),
            ["Wrong PIN.", MORE_THAN_ONE],
        ),
        (
            PinRequest(TOKEN, FINAL_TRY, "", Asker(), rejection=Rejection.WRONG),
            ["Wrong PIN.", "LAST TRY: a wrong PIN locks the token."],
        ),
        (PinRequest(TOKEN, FINAL_TRY, "", Asker()), ["LAST TRY: a wrong PIN locks the token."]),
        (PinRequest(TOKEN, FINAL_TRY | COUNT_LOW, "", Asker()), ["LAST TRY: a wrong PIN locks the token."]),
    ],
)
def test_the_question(request_: PinRequest, lines: list[str]) -> None:
    assert request_.text() == "\n".join([f"PIN for {NAME}", *lines, "PIN: "])


@pytest.mark.parametrize(
    ("token", "name"),
    [
        (TokenId("Yubico", "YubiKey YK5", "5001234", "YubiKey PIV #5001234"), 'token "YubiKey PIV #5001234"'),
        (TokenId("Yubico", "YubiKey YK5", "5001234", "work"), 'token "work" (serial 5001234)'),
        (TokenId("NSS", "NSS 3", "0000000000000000", "NSS DB"), 'token "NSS DB"'),
        (TokenId("Maker", "Model", "5001234", ""), "token Model (serial 5001234)"),
        (TokenId("Maker", "Model", "0000", "work", copy=1), 'token "work" #2'),
    ],
)
def test_the_token_is_named_as_it_is_known(token: TokenId, name: str) -> None:
    assert PinRequest(token, TokenFlag(0), "", Asker()).facts() == [f"PIN for {name}"]


@pytest.mark.parametrize("text", ["a\nLAST TRY: press OK", "a\0b", "a\x1b[2Jb", "a\rb", "a\u2028b"])
def test_nobody_but_the_agent_writes_lines_of_the_question(askpass: Askpass, text: str) -> None:
    """A token chooses its labels, a program its name."""
    token = TokenId("Maker", "Model", "1", text)
    request = PinRequest(token, TokenFlag(0), text, Asker(text, purpose=()))
    assert len(request.text().splitlines()) == 4
    assert all(line.isprintable() for line in request.text().splitlines())
    assert ask(askpass("echo 123456"), request).value == b"123456"


CONFIRM = ConfirmRequest(
    "login key", "SHA256:abc", Asker("ssh (pid 4711)", purpose=("login at host example.org",))
)


def confirm(prompter: AskpassPrompter) -> bool:
    return run(prompter.confirm(CONFIRM))


def test_the_question_for_a_permission() -> None:
    assert CONFIRM.text().splitlines() == [
        "Allow use of key login key?",
        "Key fingerprint SHA256:abc.",
        "login at host example.org",
        "asked for by ssh (pid 4711)",
    ]


@pytest.mark.parametrize("body", ["exit 0", "echo", "echo yes", "echo YES", "printf Yes", r"printf '\nno\n'"])
def test_a_yes(askpass: Askpass, body: str) -> None:
    assert confirm(askpass(body)) is True


@pytest.mark.parametrize(
    "body", ["exit 1", "echo yes; exit 1", "echo no", "echo yess", "echo ye", "kill -9 $$"]
)
def test_a_no(askpass: Askpass, body: str) -> None:
    assert confirm(askpass(body)) is False


def test_the_program_knows_that_it_is_asked_for_a_permission(askpass: Askpass, tmp_path: Path) -> None:
    confirm(askpass(f'printf "%s|%s|%s" "$#" "$SSH_ASKPASS_PROMPT" "$1" >{tmp_path}/question'))
    assert (tmp_path / "question").read_text() == f"1|confirm|{CONFIRM.text()}"


def test_a_pin_is_not_asked_for_as_a_permission(askpass: Askpass, tmp_path: Path) -> None:
    body = f'echo "${{SSH_ASKPASS_PROMPT-none}}" >{tmp_path}/hint; echo 123456'
    ask(askpass(body, SSH_ASKPASS_PROMPT="confirm"))
    assert (tmp_path / "hint").read_text() == "none\n"


def test_a_permission_nobody_gives_in_time_is_neither_yes_nor_no(askpass: Askpass, tmp_path: Path) -> None:
    with pytest.raises(PromptError) as caught:
        confirm(askpass(f"echo $$ >{tmp_path}/pid; exec sleep 60", timeout=1))
    assert caught.value.reason == 'key "login key" needs a confirmation: nobody answered within 1 s'
    assert_gone(tmp_path / "pid")


def test_a_permission_nobody_can_be_asked_for() -> None:
    with pytest.raises(NobodyAskedError, match="there is no display"):
        confirm(AskpassPrompter({"SSH_ASKPASS": "/bin/true"}, 15))
    with pytest.raises(NobodyAskedError, match="SSH_ASKPASS_REQUIRE is never"):
        confirm(AskpassPrompter({"SSH_ASKPASS_REQUIRE": "never", "DISPLAY": ":0"}, 15))
    assert confirm(AskpassPrompter({"SSH_ASKPASS": "/bin/true", "DISPLAY": ":0"}, 15))


def test_a_key_cannot_write_lines_of_the_question() -> None:
    request = ConfirmRequest("a\nKey fingerprint SHA256:xyz.", "SHA256:abc", Asker("ssh\nfor you"))
    assert len(request.text().splitlines()) == 3
