"""Questions on a terminal: what is shown there, what is read from it, and how it is left."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import termios
from dataclasses import replace
from pathlib import Path

import pytest
from doubles.screen import Screen
from doubles.stand_ins import run

from replug.token.errors import NobodyAskedError, PromptError
from replug.token.identity import TokenFlag, TokenId
from replug.token.pins.pin import Pin
from replug.token.prompts.request import Asker, ConfirmRequest, PinRequest
from replug.token.prompts.terminal import TerminalPrompter

TOKEN = TokenId("Maker", "Model", "5001234", "work")
ASKER = Asker("ssh (pid 4711)", purpose=("login at host example.org",))
REQUEST = PinRequest(TOKEN, TokenFlag.USER_PIN_FINAL_TRY, "login key", ASKER)
CONFIRM = ConfirmRequest("login key", "SHA256:abc", ASKER)


def prompter(screen: Screen, timeout: float = 15) -> TerminalPrompter:
    return TerminalPrompter(screen.terminal, timeout, screen.terminals)


def pin_typed(screen: Screen, *keys: str | bytes) -> Pin:
    """The PIN for these keys, each group typed once the question stands."""

    async def main() -> Pin:
        asking = asyncio.create_task(prompter(screen).ask(REQUEST))
        await screen.shows("locks the token.\nPIN: ")
        for group in keys:
            screen.type(group)
        return await asking

    return run(main())


def allowed(screen: Screen, keys: str) -> bool:
    async def main() -> bool:
        asking = asyncio.create_task(prompter(screen).confirm(CONFIRM))
        await screen.shows("(yes/no) ")
        screen.type(keys)
        return await asking

    return run(main())


@pytest.mark.parametrize(
    ("keys", "pin"),
    [
        (b"123456\n", b"123456"),
        (b"123456\r", b"123456"),
        (b"12x\x7f3456\n", b"123456"),
        (b"\x7f\x7f123456\n", b"123456"),
        (b"wrong\x15123456\n", b"123456"),
        ("1ä\x7f23456\n".encode(), b"123456"),
        ("ä€\n".encode(), "ä€".encode()),
        (b"12\x0134\x1056\n", b"123456"),
        (b" 12 56 \n", b" 12 56 "),
        (b"123456\n\x03rest", b"123456"),
    ],
)
def test_the_line_typed_is_the_pin(screen: Screen, keys: bytes, pin: bytes) -> None:
    before = screen.mode
    typed = pin_typed(screen, keys)
    assert typed.value == pin
    assert typed.last_try_known
    assert screen.mode == before


def test_the_question_is_shown_and_the_pin_is_not(screen: Screen) -> None:
    pin_typed(screen, "123456\n")
    run(screen.shows(": \n"))
    assert screen.shown == REQUEST.text() + "\n"
    assert screen.shown.splitlines() == [
        'PIN for token "work" (serial 5001234)',
        "to use the key login key",
        "login at host example.org",
        "asked for by ssh (pid 4711)",
        "LAST TRY: a wrong PIN locks the token.",
        "PIN: ",
    ]


@pytest.mark.parametrize("keys", ["\x03", "12\x03", "\x1b", "\x04", "\n", "\x1c", "\x1a"])
def test_cancelled(screen: Screen, keys: str) -> None:
    before = screen.mode
    with pytest.raises(PromptError, match="the PIN prompt was cancelled"):
        pin_typed(screen, keys)
    assert screen.mode == before


def test_a_function_key_is_no_part_of_a_pin(screen: Screen) -> None:
    assert pin_typed(screen, "1\x1b[A2\x1bOP34\x1b[3~5\x1bx6\n").value == b"123456"


def test_a_pin_that_is_too_long_is_none(screen: Screen) -> None:
    with pytest.raises(PromptError, match="the PIN entered is too long"):
        pin_typed(screen, "1" * 300 + "\n")


def test_what_was_typed_before_the_question_is_no_answer(screen: Screen) -> None:
    screen.type("make install\n")
    assert pin_typed(screen, "123456\n").value == b"123456"


@pytest.mark.parametrize(
    ("keys", "answer"),
    [
        ("yes\n", True),
        ("y\n", True),
        ("YES\n", True),
        ("no\n", False),
        ("\n", False),
        ("yess\n", False),
        ("\x03", False),
    ],
)
def test_a_permission(screen: Screen, keys: str, answer: bool) -> None:
    assert allowed(screen, keys) is answer


def test_the_question_for_a_permission_and_its_answer_are_shown(screen: Screen) -> None:
    allowed(screen, "yes\n")
    run(screen.shows("yes\n"))
    assert screen.shown == f"{CONFIRM.text()}\n(yes/no) yes\n"


def test_no_answer_in_time(screen: Screen) -> None:
    before = screen.mode
    with pytest.raises(PromptError, match=r"no PIN was entered within 0\.2 s"):
        run(prompter(screen, timeout=0.2).ask(REQUEST))
    assert screen.mode == before
    run(screen.shows("(no answer in time)"))


def test_a_question_that_nobody_waits_for_any_more(screen: Screen) -> None:
    before = screen.mode

    async def main() -> None:
        asking = asyncio.create_task(prompter(screen).ask(REQUEST))
        await screen.shows("locks the token.\nPIN: ")
        assert screen.mode != before
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()

    run(main())
    assert screen.mode == before


def test_a_terminal_that_is_closed_meanwhile(screen: Screen) -> None:
    async def main() -> None:
        asking = asyncio.create_task(prompter(screen).ask(REQUEST))
        await screen.shows("locks the token.\nPIN: ")
        screen.hang_up()
        await asking

    path = screen.path
    with pytest.raises(PromptError, match=f"{path} was closed"):
        run(main())


def test_a_mode_that_somebody_else_has_set_meanwhile_stays(screen: Screen) -> None:
    async def main() -> list:
        asking = asyncio.create_task(prompter(screen).ask(REQUEST))
        await screen.shows("locks the token.\nPIN: ")
        screen.set_single_keys(vmin=7)
        theirs = screen.mode
        asking.cancel()
        await asyncio.wait([asking])
        return theirs

    assert run(main()) == screen.mode


def test_keys_that_another_program_reads_are_not_ours(screen: Screen) -> None:
    """A shell's command line, an editor, ssh with its session: half of the PIN would be theirs."""
    screen.set_single_keys()
    with pytest.raises(NobodyAskedError) as caught:
        run(prompter(screen).ask(REQUEST))
    assert caught.value.reason == f"a program reads single keys on {screen.path}"


def test_a_program_that_has_ended_or_has_another_terminal_is_not_asked_for(screen: Screen) -> None:
    terminal = replace(screen.terminal, process=os.getpid())
    with pytest.raises(NobodyAskedError, match="not in the foreground"):
        run(TerminalPrompter(terminal, 15, screen.terminals).ask(REQUEST))


@pytest.mark.parametrize("path", ["/nonexistent/tty", "/dev/null"])
def test_what_is_no_terminal(screen: Screen, path: str) -> None:
    with pytest.raises(NobodyAskedError, match=path):
        run(TerminalPrompter(replace(screen.terminal, path=path), 15, screen.terminals).ask(REQUEST))


def test_a_terminal_whose_name_another_one_has_by_now(screen: Screen) -> None:
    other, keyboard = os.openpty()
    terminal = replace(screen.terminal, path=os.ttyname(keyboard))
    with pytest.raises(NobodyAskedError, match="another terminal by now"):
        run(TerminalPrompter(terminal, 15, screen.terminals).ask(REQUEST))
    os.close(other)
    os.close(keyboard)


IN_BACKGROUND = """
import asyncio, fcntl, os, signal, sys, termios
from doubles.fork_servers import running_fork_server
from replug.token.prompts.place import Terminal
from replug.token.prompts.request import Asker, ConfirmRequest
from replug.token.prompts.terminal import TerminalPrompter
from replug.token.prompts.terminals import Terminals
os.setsid()
keyboard = os.open(sys.argv[1], os.O_RDWR)
fcntl.ioctl(keyboard, termios.TIOCSCTTY, 0)
if os.fork():  # the shell, whose job in the foreground it is itself
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(-1, os.WUNTRACED)[1]))
os.setpgid(0, 0)
terminal = Terminal(sys.argv[1], os.fstat(keyboard).st_rdev, os.getppid())
with running_fork_server() as server:
    question = ConfirmRequest("key", "SHA256:abc", Asker("ssh", 1, ""))
    prompter = TerminalPrompter(terminal, 15, Terminals(server))
    sys.exit(not asyncio.run(prompter.confirm(question)))
"""


def test_an_agent_in_the_background_of_its_own_terminal_asks_there(screen: Screen) -> None:
    """And nothing is stopped: others are who read there (SIGTTIN), or write after `stty tostop` (SIGTTOU)."""
    mode = screen.mode
    mode[3] |= termios.TOSTOP
    termios.tcsetattr(screen.keyboard, termios.TCSANOW, mode)
    tests = Path(__file__).parents[3]
    agent = subprocess.Popen([sys.executable, "-c", IN_BACKGROUND, screen.path], cwd=tests)
    try:
        run(screen.shows("(yes/no) "))
        screen.type("yes\n")
        assert agent.wait(timeout=15) == 0
    finally:
        agent.kill()
        agent.wait()
    assert screen.mode == mode
