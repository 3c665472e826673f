"""Which way of asking is taken, for real processes in real places, and why none is where none is."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from doubles.screen import Screen
from doubles.stand_ins import run, settle
from rigs.terminal import eventually

from replug.token.errors import PromptError
from replug.token.identity import TokenFlag, TokenId
from replug.token.pins.pin import Pin
from replug.token.prompts import choice as prompt_choice
from replug.token.prompts.choice import ChoosingPrompter
from replug.token.prompts.environment import environment_of
from replug.token.prompts.place import Place
from replug.token.prompts.request import Asker, ConfirmRequest, PinRequest
from replug.token.prompts.way import PromptWay

TOKEN = TokenId("Maker", "Model", "5001234", "work")

PROGRAM = '#!/bin/sh\necho {name} >>{record}\necho "$DISPLAY" >>{record}\necho {answer}\n'
PINENTRY = """#!/bin/sh
echo {name} >>{record}
echo "$DISPLAY" >>{record}
echo OK
while read -r command argument; do
    case "$command" in GETPIN) echo "{answer}";; esac
    echo OK
done
"""


class Desk:
    """What a machine has to ask with, and a process that asks."""

    def __init__(self, folder: Path, screen: Screen) -> None:
        self.folder = folder
        self.screen = screen
        self.record = folder / "record"
        (folder / "bin").mkdir()
        (folder / "run").mkdir(mode=0o700)
        # Without the machine's own pinentry and askpass, if it has any.
        self.own = {
            "PATH": f"{folder}/bin",
            "SSH_ASKPASS": "/nonexistent/askpass",
            "XDG_RUNTIME_DIR": f"{folder}/run",
        }
        self.place = Place({})

    def display(self, **environment: str) -> Desk:
        self.place = Place({"DISPLAY": ":3", **environment}, self.place.terminal)
        return self

    def terminal(self) -> Desk:
        self.place = Place(self.place.environment, self.screen.terminal)
        return self

    def askpass(self, answer: str = "111111") -> Desk:
        self.own["SSH_ASKPASS"] = self._program("askpass", PROGRAM, answer)
        return self

    def pinentry(self, name: str = "pinentry-qt", answer: str = "D 222222") -> Desk:
        self._program(name, PINENTRY, answer)
        return self

    def password_folder(self) -> Desk:
        (self.folder / "run/systemd/ask-password").mkdir(parents=True)
        return self

    def _program(self, name: str, text: str, answer: str) -> str:
        program = self.folder / "bin" / name
        program.write_text(text.format(name=name, record=self.record, answer=answer))
        program.chmod(0o700)
        return str(program)

    @property
    def asked(self) -> list[str]:
        return self.record.read_text().split() if self.record.exists() else []


@pytest.fixture
def desk(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    folder = Path(tempfile.mkdtemp(prefix="rp-"))  # sockets in it must fit 108 bytes
    desk = Desk(folder, screen)
    monkeypatch.setattr(prompt_choice, "find_place", lambda *_: desk.place)
    yield desk
    shutil.rmtree(folder)


REQUEST = PinRequest(TOKEN, TokenFlag(0), "login key", Asker("ssh (pid 4711)", os.getpid()))
CONFIRM = ConfirmRequest("login key", "SHA256:abc", Asker("ssh (pid 4711)", os.getpid()))


def choosing(
    desk: Desk,
    timeout: float = 15,
    *,
    way: PromptWay = "auto",
    pinentry_program: str | None = None,
    environment_of: Callable[[int], Mapping[str, str]] = environment_of,
) -> ChoosingPrompter:
    return ChoosingPrompter(
        desk.own,
        timeout,
        way=way,
        pinentry_program=pinentry_program,
        environment_of=environment_of,
        terminals=desk.screen.terminals,
    )


def ask(desk: Desk, way: PromptWay = "auto", pinentry_program: str | None = None, typed: str = "") -> bytes:
    """The PIN that comes; `typed` is typed at the terminal once the question stands there."""

    async def main() -> Pin:
        prompter = choosing(desk, way=way, pinentry_program=pinentry_program)
        asking = asyncio.create_task(prompter.ask(REQUEST))
        desk.screen.shown = ""
        if typed:
            await desk.screen.shows(REQUEST.text())
            desk.screen.type(typed + "\n")
        return await asking

    return bytes(run(main()).value)


def test_on_a_display_a_pinentry_with_windows(desk: Desk) -> None:
    assert ask(desk.display().terminal().askpass().pinentry()) == b"222222"
    assert desk.asked == ["pinentry-qt", ":3"]


def test_else_askpass(desk: Desk) -> None:
    assert ask(desk.display().terminal().askpass().pinentry("pinentry-curses")) == b"111111"
    assert desk.asked == ["askpass", ":3"]


@pytest.mark.parametrize("require", ["force", "prefer"])
@pytest.mark.parametrize("whose", ["agent", "program"])
def test_askpass_first_where_ssh_would_take_it(desk: Desk, require: str, whose: str) -> None:
    desk.display().terminal().askpass().pinentry()
    if whose == "agent":
        desk.own["SSH_ASKPASS_REQUIRE"] = require
    else:
        desk.display(SSH_ASKPASS_REQUIRE=require)
    assert ask(desk) == b"111111"


def test_no_dialogs_where_ssh_would_have_none(desk: Desk) -> None:
    desk.display(SSH_ASKPASS_REQUIRE="never").terminal().askpass().pinentry()
    assert ask(desk, typed="123456") == b"123456"
    assert desk.asked == []


def test_without_a_display_the_terminal(desk: Desk) -> None:
    desk.own["DISPLAY"] = ":7"
    assert ask(desk.terminal().askpass().pinentry(), typed="123456") == b"123456"
    assert desk.asked == []


def test_in_tmux_the_pane(desk: Desk) -> None:
    desk.terminal().display(TMUX="/tmp/tmux-1000/default,1,0").askpass().pinentry()
    assert ask(desk, typed="123456") == b"123456"


def test_in_tmux_the_display_when_the_pane_is_in_use(desk: Desk) -> None:
    desk.screen.set_single_keys()
    desk.terminal().display(TMUX="/tmp/tmux-1000/default,1,0").pinentry()
    assert ask(desk) == b"222222"


def test_the_terminal_when_the_display_cannot_be_used(desk: Desk) -> None:
    assert ask(desk.display().terminal(), typed="123456") == b"123456"
    assert (
        ask(desk.display().terminal().pinentry(answer="ERR 83918950 no terminal"), typed="234567")
        == b"234567"
    )


def test_a_terminal_pinentry_if_one_is_set(desk: Desk, screen: Screen) -> None:
    desk.terminal().pinentry("pinentry-tty", "D 333333")
    assert ask(desk, pinentry_program=f"{desk.folder}/bin/pinentry-tty") == b"333333"


def answered_by_password_agent(desk: Desk, way: PromptWay) -> bytes:
    async def main() -> Pin:
        asking = asyncio.create_task(choosing(desk, way=way).ask(REQUEST))
        folder = desk.folder / "run/systemd/ask-password"
        async with asyncio.timeout(15):
            while not (files := list(folder.glob("ask.*"))):  # noqa: ASYNC110 - its folder may be new
                await asyncio.sleep(0.001)
        [address] = [line[7:] for line in files[0].read_text().splitlines() if line.startswith("Socket=")]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"+444444", address)
        return await asking

    return bytes(run(main()).value)


def test_a_password_agent_where_nothing_else_is(desk: Desk) -> None:
    assert answered_by_password_agent(desk.password_folder(), "auto") == b"444444"


def test_a_password_agent_where_it_is_set(desk: Desk) -> None:
    assert answered_by_password_agent(desk.display().terminal().askpass(), "systemd") == b"444444"


@pytest.mark.parametrize(
    ("way", "pin"), [("askpass", b"111111"), ("pinentry", b"222222"), ("terminal", b"123456")]
)
def test_the_way_that_is_set(desk: Desk, way: PromptWay, pin: bytes) -> None:
    desk.display().terminal().askpass().pinentry()
    assert ask(desk, way, typed="123456" if way == "terminal" else "") == pin


def test_the_way_that_is_set_is_the_only_one(desk: Desk) -> None:
    with pytest.raises(PromptError) as caught:
        ask(desk.display().askpass().pinentry(), "terminal")
    assert "there is no way to ask for it: the program has no terminal" in caught.value.reason


def test_the_pinentry_that_is_set(desk: Desk) -> None:
    desk.display().pinentry("pinentry-gnome3", "D 555555").pinentry("mine", "D 666666")
    assert ask(desk) == b"555555"
    assert ask(desk, pinentry_program=f"{desk.folder}/bin/mine") == b"666666"


def test_nothing_to_ask_with(desk: Desk) -> None:
    with pytest.raises(PromptError) as caught:
        ask(desk.askpass().pinentry())
    assert str(caught.value) == (
        'token "work" (serial 5001234): the PIN is needed and there is no way to ask for it: '
        "there is no display (DISPLAY, WAYLAND_DISPLAY); the program has no terminal; "
        "give it with ssh-add -s, or run the program on a terminal or a desktop"
    )


def test_everything_there_but_nothing_works(desk: Desk) -> None:
    desk.screen.set_single_keys()
    desk.own["SSH_ASKPASS"] = "/nonexistent/askpass"
    with pytest.raises(PromptError) as caught:
        ask(desk.display().terminal())
    assert caught.value.reason == (
        'token "work" (serial 5001234): the PIN is needed and there is no way to ask for it: '
        "no pinentry with windows is installed; "
        "/nonexistent/askpass does not start: No such file or directory; "
        f"a program reads single keys on {desk.screen.path}"
    )


def test_who_cancels_is_not_asked_again_elsewhere(desk: Desk) -> None:
    desk.display().terminal().askpass().pinentry(answer="ERR 83886179 cancelled")
    with pytest.raises(PromptError, match="was cancelled"):
        ask(desk)
    assert desk.asked == ["pinentry-qt", ":3"]


def test_a_permission(desk: Desk) -> None:
    desk.display().pinentry()
    assert run(choosing(desk).confirm(CONFIRM)) is True
    with pytest.raises(
        PromptError, match='key "login key" needs a confirmation: the agent has no way to ask'
    ):
        run(choosing(desk, way="systemd").confirm(CONFIRM))


def test_two_questions_on_one_terminal_come_one_after_the_other(desk: Desk, screen: Screen) -> None:
    desk.terminal()
    other = PinRequest(TokenId("Maker", "Model", "2", "other"), TokenFlag(0), "", Asker("git", os.getpid()))

    async def main() -> list[bytes]:
        prompter = choosing(desk)
        asking = [asyncio.create_task(prompter.ask(REQUEST))]
        await screen.shows(REQUEST.text())
        asking.append(asyncio.create_task(prompter.ask(other)))
        await settle()
        assert "other" not in screen.shown
        screen.type("123456\n")
        await screen.shows(other.text())
        screen.type("234567\n")
        return [bytes((await task).value) for task in asking]

    assert run(main()) == [b"123456", b"234567"]


def test_a_terminal_that_never_becomes_free(desk: Desk, screen: Screen) -> None:
    desk.terminal()

    async def main() -> None:
        patient, hasty = choosing(desk), choosing(desk, 0.1)
        hasty._turns._turns = patient._turns._turns
        first = asyncio.create_task(patient.ask(REQUEST))
        await screen.shows(REQUEST.text())
        try:
            with pytest.raises(PromptError, match="is in use by another question"):
                await hasty.ask(REQUEST)
        finally:
            first.cancel()

    run(main())


def test_when_the_program_ends_its_terminal_is_given_back(desk: Desk, screen: Screen) -> None:
    desk.terminal()
    before = screen.mode

    async def main() -> None:
        with subprocess.Popen(["sleep", "600"]) as program:
            request = replace(REQUEST, asker=Asker("sleep", program.pid))
            asking = asyncio.create_task(choosing(desk).ask(request))
            await screen.shows(request.text())
            program.kill()
            with pytest.raises(PromptError, match="the program that asked has ended"):
                await asking

    run(main())
    assert screen.mode == before


def test_the_terminal_of_a_program_that_is_gone_is_left_alone(desk: Desk) -> None:
    with subprocess.Popen(["true"]) as program:
        pass
    request = replace(REQUEST, asker=Asker("true", program.pid))
    with pytest.raises(PromptError, match="the program that asked has ended"):
        run(choosing(desk.terminal()).ask(request))


def test_a_process_that_does_not_let_itself_be_looked_at(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory its environment is in can be a file of its own, and reading that a wait without end."""
    release = threading.Event()

    def find_place(pid: int | None, *_: object) -> Place:
        if pid is not None:
            release.wait(20)
        return Place({"DISPLAY": ":7"}, certain=False)

    monkeypatch.setattr(prompt_choice, "find_place", find_place)
    monkeypatch.setattr(prompt_choice, "_LONGEST_LOOK", 0.05)
    try:
        assert ask(desk.askpass()) == b"111111"
        assert desk.asked == ["askpass", ":7"]
    finally:
        release.set()


# Real processes in a real place.

Tmux = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tmux(desk: Desk) -> Iterator[Tmux]:
    """A tmux server of the test's own."""

    def tmux(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["tmux", "-S", f"{desk.folder}/tmux", "-f", "/dev/null", *arguments]
        environment = {"PATH": os.environ["PATH"], "TERM": "xterm", "LANG": "C.UTF-8", "DISPLAY": ":3"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    yield tmux
    tmux("kill-server")


def test_a_program_in_a_pane_of_tmux(desk: Desk, tmux: Tmux, monkeypatch: pytest.MonkeyPatch) -> None:
    """The question stands in the pane, though the program has a display too, and the PIN does not."""
    monkeypatch.undo()
    tmux("new-session", "-d", "-x", "120", "-y", "30", "-s", "s", "exec sleep 600")
    pid = int(tmux("display-message", "-p", "-t", "s", "#{pane_pid}").stdout)
    # Until it has become the program it has the environment of the tmux server, or (in execve) none.
    comm = Path(f"/proc/{pid}/comm")
    eventually(lambda: comm.read_text() == "sleep\n", "the program in the pane")
    request = PinRequest(TOKEN, TokenFlag(0), "login key", Asker(f"sleep (pid {pid})", pid))

    async def main() -> Pin:
        asking = asyncio.create_task(choosing(desk.askpass()).ask(request))
        async with asyncio.timeout(15):
            while "asked for by sleep" not in await asyncio.to_thread(pane):
                assert not asking.done()
        await asyncio.to_thread(tmux, "send-keys", "-t", "s", "123456", "Enter")
        return await asking

    def pane() -> str:
        return tmux("capture-pane", "-p", "-t", "s").stdout

    assert run(main()).value == b"123456"
    assert pane().splitlines()[:4] == [
        'PIN for token "work" (serial 5001234)',
        "to use the key login key",
        f"asked for by sleep (pid {pid})",
        "PIN:",
    ]
    assert "123456" not in pane()
    assert desk.asked == []


def test_a_program_that_is_gone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its display cannot be known any more; the agent's own is what is left."""
    monkeypatch.undo()
    with subprocess.Popen(["true"]) as process:
        pass
    desk.askpass().own["DISPLAY"] = ":7"
    request = PinRequest(TOKEN, TokenFlag(0), "", Asker("true", process.pid))
    assert run(choosing(desk).ask(request)).value == b"111111"
    assert desk.asked == ["askpass", ":7"]


def test_somebody_else_may_look_at_the_program(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a user namespace the agent cannot; what it is told is believed no more than what it sees."""
    monkeypatch.undo()
    seen = []

    def look(pid: int) -> dict[str, str]:
        seen.append(pid)
        return {"DISPLAY": ":5", "SSH_ASKPASS": "/evil", "SSH_ASKPASS_REQUIRE": "force"}

    assert run(choosing(desk.askpass(), environment_of=look).ask(REQUEST)).value == b"111111"
    assert desk.asked == ["askpass", ":5"]
    assert seen == [os.getpid()]


def test_a_programs_own_askpass_is_not_started(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever could name it would be given the PIN."""
    monkeypatch.undo()
    theirs = desk._program("theirs", PROGRAM, "000000")
    environment = {"SSH_ASKPASS": theirs, "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":3", "PATH": "/evil"}
    with subprocess.Popen(["/bin/sleep", "600"], env=environment, start_new_session=True) as process:
        try:
            environ = Path(f"/proc/{process.pid}/environ")
            eventually(environ.read_bytes, "it has executed sleep")
            request = PinRequest(TOKEN, TokenFlag(0), "", Asker("sleep", process.pid))
            assert run(choosing(desk.askpass()).ask(request)).value == b"111111"
        finally:
            process.kill()
    assert desk.asked == ["askpass", ":3"]
