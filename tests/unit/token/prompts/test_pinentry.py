"""Dialogs of a pinentry: what it is told, what its answers mean, and two of the real ones."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from doubles.screen import Screen
from doubles.stand_ins import ended, run

from replug.token.errors import NobodyAskedError, PromptError, Rejection
from replug.token.identity import TokenFlag, TokenId
from replug.token.pins.pin import Pin
from replug.token.prompts.pinentry import PinentryPrompter, find_pinentry, is_textual
from replug.token.prompts.request import Asker, ConfirmRequest, PinRequest
from replug.token.prompts.terminals import Terminals

TOKEN = TokenId("Maker", "Model", "5001234", "100% work")
ASKER = Asker("ssh (pid 4711)", purpose=("login at host example.org",))
REQUEST = PinRequest(TOKEN, TokenFlag.USER_PIN_FINAL_TRY, "login key", ASKER, rejection=Rejection.REMEMBERED)
CONFIRM = ConfirmRequest("login key", "SHA256:abc", ASKER)

SCRIPT = """#!{python} -IS
import os, sys
sys.stdin.reconfigure(newline="\\n")
with open({told!r}, "w") as told:
    answers = {answers!r}
    print(answers.get("", "OK Pleased to meet you"), flush=True)
    for line in sys.stdin:
        print(line, end="", file=told, flush=True)
        print(answers.get(line.split()[0], "OK"), flush=True)
"""

CANCELLED = "ERR 83886179 Operation cancelled <Pinentry>"
NOT_CONFIRMED = "ERR 83886194 Not confirmed <Pinentry>"
OUT_OF_TIME = "ERR 83886142 Timeout <Pinentry>"
NO_TERMINAL = "ERR 83918950 Inappropriate ioctl for device <Pinentry>"
UNKNOWN = "ERR 536871187 Unknown IPC command <User defined source 1>"


class ScriptedPinentry:
    """A program that speaks Assuan, answers each command as it is set up to, and records what it is told."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "pinentry-scripted"
        self._told = folder / "told"

    def answers(self, **answers: str) -> None:
        """What to answer to a command instead of OK; `greeting` is said before any."""
        if "greeting" in answers:
            answers[""] = answers.pop("greeting")
        text = SCRIPT.format(python=sys.executable, told=str(self._told), answers=answers)
        self.program.write_text(text)
        self.program.chmod(0o700)

    def prompter(
        self,
        environment: Mapping[str, str] | None = None,
        timeout: float = 15,
        screen: Screen | None = None,
    ) -> PinentryPrompter:
        terminal, terminals = (screen.terminal, screen.terminals) if screen else (None, Terminals(None))
        return PinentryPrompter(str(self.program), environment or {}, timeout, terminal, terminals)

    def ask(self, **answers: str) -> Pin:
        self.answers(**answers)
        return run(self.prompter().ask(REQUEST))

    def confirm(self, **answers: str) -> bool:
        self.answers(**answers)
        return run(self.prompter().confirm(CONFIRM))

    @property
    def told(self) -> list[str]:
        return self._told.read_text().splitlines()


@pytest.fixture
def pinentry(tmp_path: Path) -> ScriptedPinentry:
    return ScriptedPinentry(tmp_path)


def test_what_it_is_told_before_it_asks_for_a_pin(pinentry: ScriptedPinentry, screen: Screen) -> None:
    pinentry.answers(GETPIN="D 123456\nOK")
    environment = {"DISPLAY": ":3", "TERM": "xterm", "LANG": "de_AT.UTF-8", "LC_CTYPE": "C.UTF-8"}
    pin = run(pinentry.prompter(environment, 30, screen).ask(REQUEST))
    assert pin.value == b"123456"
    assert pin.last_try_known
    assert pinentry.told == [
        "OPTION display=:3",
        f"OPTION ttyname={screen.path}",
        "OPTION ttytype=xterm",
        "OPTION lc-ctype=C.UTF-8",
        "OPTION lc-messages=de_AT.UTF-8",
        "SETTIMEOUT 30",
        "SETTITLE replug",
        'SETDESC PIN for token "100%25 work" (serial 5001234)%0Ato use the key login key%0A'
        "login at host example.org%0Aasked for by ssh (pid 4711)",
        "SETPROMPT PIN:",
        "SETERROR The PIN remembered until now was rejected.%0ALAST TRY: a wrong PIN locks the token.",
        "GETPIN",
    ]


def test_what_it_is_told_before_it_asks_for_a_permission(pinentry: ScriptedPinentry) -> None:
    assert pinentry.confirm() is True
    assert pinentry.told == [
        "SETTIMEOUT 15",
        "SETTITLE replug",
        "SETDESC Allow use of key login key?%0AKey fingerprint SHA256:abc.%0A"
        "login at host example.org%0Aasked for by ssh (pid 4711)",
        "SETOK Allow",
        "SETCANCEL Refuse",
        "CONFIRM",
    ]


def test_it_lives_in_the_environment_it_is_given(tmp_path: Path) -> None:
    program = tmp_path / "pinentry"
    program.write_text(f"#!/bin/sh\nenv >{tmp_path}/environment\n")
    program.chmod(0o700)
    with pytest.raises(NobodyAskedError):
        run(PinentryPrompter(str(program), {"DISPLAY": ":3"}, 15, None, Terminals(None)).ask(REQUEST))
    lines = (tmp_path / "environment").read_text().splitlines()
    assert {line for line in lines if not line.startswith(("PWD=", "SHLVL=", "_=", "OLDPWD="))} == {
        "DISPLAY=:3"
    }


@pytest.mark.parametrize(
    ("answer", "pin"),
    [
        ("D 123456\nOK", b"123456"),
        ("D 12\nD 34\nD 56\nOK", b"123456"),
        ("S PASSWORD_FROM_CACHE\n# a comment\nD 123456\nOK closing", b"123456"),
        ("D a%25b%0Ac%0d%00\nOK", b"a%b\nc\r\0"),
        ("D ä 1\nOK", "ä 1".encode()),
        ("D " + "1" * 255 + "\nOK", b"1" * 255),
    ],
)
def test_the_data_is_the_pin(pinentry: ScriptedPinentry, answer: str, pin: bytes) -> None:
    assert pinentry.ask(GETPIN=answer).value == pin


@pytest.mark.parametrize("answer", [CANCELLED, "OK", "D \nOK", "ERR 83886278 fully cancelled", "ERR 99"])
def test_a_pin_that_is_not_given(pinentry: ScriptedPinentry, answer: str) -> None:
    with pytest.raises(PromptError, match="the PIN prompt was cancelled"):
        pinentry.ask(GETPIN=answer)


@pytest.mark.parametrize("command", ["GETPIN", "CONFIRM"])
def test_a_dialog_that_is_killed_is_a_no(tmp_path: Path, command: str) -> None:
    program = tmp_path / "pinentry"
    body = f"echo OK; while read -r c _; do [ $c != {command} ] || kill -INT $$; echo OK; done"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o700)
    prompter = PinentryPrompter(str(program), {}, 15, None, Terminals(None))
    if command == "GETPIN":
        with pytest.raises(PromptError, match="was cancelled"):
            run(prompter.ask(REQUEST))
    else:
        assert run(prompter.confirm(CONFIRM)) is False


@pytest.mark.parametrize("answer", [CANCELLED, NOT_CONFIRMED])
def test_a_permission_that_is_not_given(pinentry: ScriptedPinentry, answer: str) -> None:
    assert pinentry.confirm(CONFIRM=answer) is False


def test_a_pin_that_is_too_long_is_none(pinentry: ScriptedPinentry) -> None:
    with pytest.raises(PromptError, match="too long"):
        pinentry.ask(GETPIN="D " + "1" * 256 + "\nOK")


def test_a_dialog_whose_time_is_up(pinentry: ScriptedPinentry) -> None:
    with pytest.raises(PromptError, match="no PIN was entered within 15 s"):
        pinentry.ask(GETPIN=OUT_OF_TIME)
    with pytest.raises(PromptError, match="nobody answered within 15 s"):
        pinentry.confirm(CONFIRM=OUT_OF_TIME)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"GETPIN": NO_TERMINAL}, "Inappropriate ioctl for device <Pinentry>"),
        ({"SETDESC": UNKNOWN}, "Unknown IPC command <User defined source 1>"),
        ({"greeting": "ERR 83886340 no display"}, "no display"),
        ({"greeting": "Usage: something else"}, "it does not speak the pinentry protocol"),
        ({"GETPIN": "INQUIRE QUALITY 123"}, "it does not speak the pinentry protocol"),
        ({"GETPIN": "D %zz\nOK"}, "its answer is badly escaped"),
        ({"GETPIN": "D %1\nOK"}, "its answer is badly escaped"),
        ({"GETPIN": "D " + "1" * 5000 + "\nOK"}, "its answer is too long"),
        ({"GETPIN": "ERR"}, "it does not speak the pinentry protocol"),
        ({"GETPIN": "ERR what"}, "error what"),
    ],
)
def test_a_program_that_asks_nobody(pinentry: ScriptedPinentry, answers: dict[str, str], reason: str) -> None:
    with pytest.raises(NobodyAskedError) as caught:
        pinentry.ask(**answers)
    assert caught.value.reason == f"{pinentry.program}: {reason}"


def test_a_dialog_that_is_only_less_pretty(pinentry: ScriptedPinentry) -> None:
    commands = ("OPTION", "SETTIMEOUT", "SETTITLE", "SETPROMPT")
    answers = dict.fromkeys(commands, UNKNOWN)
    assert pinentry.ask(GETPIN="D 123456\nOK", **answers).value == b"123456"


@pytest.mark.parametrize("program", ["/nonexistent/pinentry", "/dev/null", "/bin/true"])
def test_a_program_that_is_none(program: str) -> None:
    with pytest.raises(NobodyAskedError, match=program):
        run(PinentryPrompter(program, {}, 15, None, Terminals(None)).ask(REQUEST))


def test_names_of_any_length_leave_room_for_the_question(pinentry: ScriptedPinentry) -> None:
    long = "%" * 100_000
    request = ConfirmRequest(long, "SHA256:abc", Asker(long))
    pinentry.answers()
    assert run(pinentry.prompter().confirm(request)) is True
    [description] = [line for line in pinentry.told if line.startswith("SETDESC")]
    assert len(description) <= 999
    assert "%0AKey fingerprint SHA256:abc.%0A" in description


SLOW = """#!/bin/sh
echo OK
while read -r command argument; do
    case $command in GETPIN) sleep 60 & echo $$ $! >{fifo}; wait;; esac
    echo OK
done
"""


def test_a_dialog_that_nobody_waits_for_any_more_is_closed_with_all_it_started(tmp_path: Path) -> None:
    fifo, program = tmp_path / "fifo", tmp_path / "pinentry"
    os.mkfifo(fifo)
    program.write_text(SLOW.format(fifo=fifo))
    program.chmod(0o700)

    async def main() -> None:
        asking = asyncio.create_task(
            PinentryPrompter(str(program), {}, 15, None, Terminals(None)).ask(REQUEST)
        )
        pids = (await asyncio.to_thread(fifo.read_text)).split()
        asking.cancel()
        await asyncio.wait([asking])
        for pid in pids:
            await ended(int(pid))

    run(main())


def test_a_dialog_that_overstays_its_time_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replug.token.prompts.pinentry._GRACE", 0.0)
    program = tmp_path / "pinentry"
    program.write_text(SLOW.format(fifo=tmp_path / "pids"))
    program.chmod(0o700)
    with pytest.raises(PromptError, match="no PIN was entered within 1 s"):
        run(PinentryPrompter(str(program), {}, 1, None, Terminals(None)).ask(REQUEST))

    async def main() -> None:
        for pid in (tmp_path / "pids").read_text().split():
            await ended(int(pid))

    run(main())


# The real ones.


def real(name: str, screen: Screen, timeout: float = 15) -> PinentryPrompter:
    program = shutil.which(name)
    assert program, f"{name} is not installed"
    environment = {"TERM": "xterm", "LANG": "C.UTF-8", "PATH": os.environ["PATH"]}
    return PinentryPrompter(program, environment, timeout, screen.terminal, screen.terminals)


def answered(screen: Screen, prompter: PinentryPrompter, when: str, keys: str) -> Pin:
    async def main() -> Pin:
        asking = asyncio.create_task(prompter.ask(REQUEST))
        await screen.shows(when)
        screen.type(keys)
        return await asking

    return run(main())


def test_pinentry_tty_on_a_terminal(screen: Screen) -> None:
    before = screen.mode
    assert answered(screen, real("pinentry-tty", screen), "PIN:", "123456\n").value == b"123456"
    assert 'PIN for token "100% work" (serial 5001234)' in screen.shown
    assert "LAST TRY: a wrong PIN locks the token." in screen.shown
    assert "123456" not in screen.shown
    assert screen.mode == before


def test_pinentry_curses_on_a_terminal(screen: Screen) -> None:
    before = screen.mode
    screen.size(40, 100)
    assert answered(screen, real("pinentry-curses", screen), "<Cancel>", "123456\r").value == b"123456"
    assert 'PIN for token "100% work" (serial 5001234)' in screen.shown
    assert "login at host example.org" in screen.shown
    assert "123456" not in screen.shown
    assert screen.mode == before


def test_pinentry_curses_is_cancelled(screen: Screen) -> None:
    screen.size(40, 100)
    with pytest.raises(PromptError, match="the PIN prompt was cancelled"):
        answered(screen, real("pinentry-curses", screen), "<Cancel>", "\t\t\r")


def test_pinentry_curses_leaves_the_terminal_as_it_was_when_it_is_taken_away(screen: Screen) -> None:
    before = screen.mode
    screen.size(40, 100)

    async def main() -> None:
        asking = asyncio.create_task(real("pinentry-curses", screen).ask(REQUEST))
        await screen.shows("PIN:")
        assert screen.mode != before
        asking.cancel()
        await asyncio.wait([asking])
        await screen.shows("\x1b[?1049l")  # back from the screen of its own

    run(main())
    assert screen.mode == before


def test_a_pinentry_leaves_a_terminal_alone_that_is_in_use(screen: Screen) -> None:
    screen.set_single_keys()
    with pytest.raises(NobodyAskedError, match="a program reads single keys"):
        run(real("pinentry-curses", screen).ask(REQUEST))


@pytest.mark.parametrize(
    ("program", "keys", "answer"),
    [
        ("pinentry-curses", "\r", True),
        ("pinentry-curses", "\t\r", False),
        ("pinentry-tty", "a", True),
        ("pinentry-tty", "r", False),
    ],
)
def test_a_permission_on_a_terminal(screen: Screen, program: str, keys: str, answer: bool) -> None:
    screen.size(40, 100)

    async def main() -> bool:
        asking = asyncio.create_task(real(program, screen).confirm(CONFIRM))
        await screen.shows("<Refuse>" if program == "pinentry-curses" else "[ar]? ")
        screen.type(keys)
        return await asking

    assert run(main()) is answer
    assert "Allow use of key login key?" in screen.shown
    assert "Key fingerprint SHA256:abc." in screen.shown


def test_one_that_takes_escape_for_a_yes_is_not_asked_for_permissions(pinentry: ScriptedPinentry) -> None:
    pinentry.program = pinentry.program.with_name("pinentry-fltk")
    assert pinentry.ask(GETPIN="D 123456\nOK").value == b"123456"
    with pytest.raises(NobodyAskedError, match="takes Escape for a yes"):
        pinentry.confirm()


# Which one.

Install = Callable[..., str]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Puts programs of these names into a folder, links where `name=target`; gives the folder."""

    def install(*names: str, **links: str) -> str:
        for name in names:
            (tmp_path / name).touch(0o700)
        for name, target in links.items():
            (tmp_path / name).symlink_to(target)
        return str(tmp_path)

    return install


@pytest.mark.parametrize(
    ("names", "choice", "any_kind", "with_windows"),
    [
        ([], None, None, None),
        (["pinentry-curses"], None, "pinentry-curses", None),
        (["pinentry-tty", "pinentry-curses"], "pinentry-tty", "pinentry", None),
        (["pinentry-curses", "pinentry-qt"], None, "pinentry-qt", "pinentry-qt"),
        (["pinentry-curses", "pinentry-qt"], "pinentry-curses", "pinentry", "pinentry-qt"),
        (["pinentry-gnome3", "pinentry-qt"], "pinentry-qt", "pinentry", "pinentry"),
        (["pinentry-gnome3", "pinentry-qt"], None, "pinentry-gnome3", "pinentry-gnome3"),
    ],
)
def test_the_choice(
    install: Install, names: list[str], choice: str | None, any_kind: str | None, with_windows: str | None
) -> None:
    path = install(*names, **({"pinentry": choice} if choice else {}))

    def name(program: str | None) -> str | None:
        return program and os.path.basename(program)

    assert name(find_pinentry(path, windows=False)) == any_kind
    assert name(find_pinentry(path, windows=True)) == with_windows


def test_one_for_terminals_only(install: Install) -> None:
    folder = install("pinentry-curses", "pinentry-qt", pinentry="pinentry-curses")
    assert is_textual(f"{folder}/pinentry")
    assert not is_textual(f"{folder}/pinentry-qt")
