"""A mistyped PIN: the question stands again at once, and the first `ssh` logs in. The card counts tries."""

from __future__ import annotations

import configparser
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from rigs.agent import Agent, StartAgent
from rigs.askpass import Askpass
from rigs.home import Home
from rigs.pcscd import OPENSC
from rigs.piv_card import PIN, TRIES, Card
from rigs.sshd import USER, Server, only
from rigs.terminal import Done, eventually

REPLUG = Path(sys.executable).with_name("replug")
WRONG = "654321"
LAST = "LAST TRY: a wrong PIN locks the token."
LOGGED_IN = f"in {USER}\n"
PINENTRY = """#!/bin/sh
echo OK
while read -r line; do
    echo "$line" >>{told}
    if [ "$line" = GETPIN ]; then echo "D $(head -n 1 {pins})"; sed -i 1d {pins}; fi
    echo OK
done
"""
LogIn = Callable[[Agent, Home, Server, Path], tuple[Done, str]]
"""Logs in by `ssh`, with a wrong PIN and then the right one; what `ssh` said, and the second question."""


def by_askpass(agent: Agent, home: Home, server: Server, public: Path) -> tuple[Done, str]:
    askpass = Askpass(home)
    askpass.answers_first(WRONG, PIN)
    done = server.login(agent, *only(public))
    return done, askpass.text.partition("PIN for")[2].partition("PIN for")[2]


def on_the_terminal(agent: Agent, home: Home, server: Server, public: Path) -> tuple[Done, str]:
    ssh = server.ssh(*only(public), command="echo in $LOGNAME")
    done = agent.run(*ssh, typing=[("asked for by ssh (pid", WRONG), ("Wrong PIN.", PIN)])
    return done, "Wrong PIN."


def by_pinentry(agent: Agent, home: Home, server: Server, public: Path) -> tuple[Done, str]:
    home.write("pins", f"{WRONG}\n{PIN}\n")
    ssh = server.ssh(*only(public), command="echo in $LOGNAME")
    done = agent.run("env", "DISPLAY=:3", *ssh)
    told = (home.folder / "told").read_text().splitlines()
    return done, "\n".join(line for line in told if line.startswith("SETERROR"))


def in_a_pane_of_tmux(agent: Agent, home: Home, server: Server, public: Path) -> tuple[Done, str]:
    def tmux(*arguments: str) -> str:
        command = ["tmux", "-S", str(home.folder / "tmux"), "-f", "/dev/null", *arguments]
        environment = home.env | agent.env | {"TERM": "xterm"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    def shows(text: str) -> bool:
        return text in tmux("capture-pane", "-p", "-t", "s")

    command = shlex.join(server.ssh(*only(public), command="echo in $LOGNAME"))
    tmux("new-session", "-d", "-x", "200", "-y", "50", "-s", "s", f"{command}; echo over $?; exec sleep 600")
    try:
        eventually(lambda: shows("asked for by ssh (pid"), "the question")
        tmux("send-keys", "-t", "s", WRONG, "Enter")
        eventually(lambda: shows("Wrong PIN."), "the second question", within=30)
        tmux("send-keys", "-t", "s", PIN, "Enter")
        eventually(lambda: shows("over "), "the end of ssh", within=30)
        screen = tmux("capture-pane", "-p", "-t", "s")
    finally:
        tmux("kill-server")
    return Done(0 if "over 0" in screen else 1, LOGGED_IN if LOGGED_IN in screen else screen, ""), screen


def by_password_agents(agent: Agent, home: Home, server: Server, public: Path) -> tuple[Done, str]:
    folder = home.folder / "run" / "systemd" / "ask-password"
    messages: list[str] = []

    def answer() -> None:
        seen: set[Path] = set()
        for pin in (WRONG, PIN):
            eventually(lambda: set(folder.glob("ask.*")) - seen, "a question", within=30)
            [file] = set(folder.glob("ask.*")) - seen
            seen.add(file)
            question = configparser.RawConfigParser()
            question.read_string(file.read_text())
            messages.append(question["Ask"]["Message"])
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(f"+{pin}".encode(), question["Ask"]["Socket"])

    with in_thread(answer):
        done = server.login(agent, *only(public))
    return done, messages[-1]


@contextmanager
def in_thread(call: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=call)
    thread.start()
    yield
    thread.join()


WAYS: dict[str, tuple[LogIn, str]] = {
    "askpass": (by_askpass, 'prompt = "askpass"'),
    "terminal": (on_the_terminal, 'prompt = "terminal"'),
    "pinentry": (by_pinentry, 'prompt = "pinentry"\npinentry_program = "{home}/pinentry"'),
    "tmux": (in_a_pane_of_tmux, 'prompt = "terminal"'),
    "systemd": (by_password_agents, 'prompt = "systemd"'),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_first_ssh_logs_in_by_the_second_pin(
    way: str, start_agent: StartAgent, home: Home, card: Card, server: Server, public: Path
) -> None:
    log_in, configuration = WAYS[way]
    home.configure(f'modules = ["{OPENSC}"]\n' + configuration.format(home=home.folder))
    home.write("pinentry", PINENTRY.format(told=home.folder / "told", pins=home.folder / "pins"), mode=0o700)
    server.authorize(public)
    agent = start_agent()

    done, second = log_in(agent, home, server, public)

    assert (done.status, done.out) == (0, LOGGED_IN), (done, second, agent.log)
    assert "Wrong PIN" in second
    assert (card.wrong_pins, card.tries_left) == (1, TRIES)


@pytest.mark.parametrize("key", ["public", "always"])
def test_each_module_and_a_key_that_wants_the_pin_at_every_use(
    key: str,
    agent: Agent,
    module: Path,
    card: Card,
    askpass: Askpass,
    request: pytest.FixtureRequest,
) -> None:
    assert agent.add_provider(module, "").status == 0, agent.log
    askpass.answers_first(WRONG, PIN)
    assert agent.ssh_add("-T", request.getfixturevalue(key)).status == 0, agent.log
    assert (card.wrong_pins, card.tries_left) == (1, TRIES)
    assert len(askpass.questions) == 2


def test_the_last_try_is_asked_for_with_a_warning_and_not_spent_without_an_answer(
    agent: Agent, module: Path, card: Card, public: Path, askpass: Askpass
) -> None:
    assert agent.add_provider(module, "").status == 0, agent.log
    askpass.answers_first("111111", "222222")
    askpass.answers(None)

    assert agent.ssh_add("-T", public).status == 1

    *before, last = askpass.text.split("PIN for")[1:]
    assert [LAST in question for question in before] == [False, False]
    assert last.index("Wrong PIN.") < last.index(LAST)
    assert (card.wrong_pins, card.tries_left) == (2, 1)

    askpass.answers(PIN)
    assert agent.ssh_add("-T", public).status == 0, agent.log
    assert card.tries_left == TRIES


def test_a_card_that_is_locked_by_it_asks_no_more(
    agent: Agent, module: Path, card: Card, public: Path, askpass: Askpass
) -> None:
    assert agent.add_provider(module, "").status == 0, agent.log
    askpass.answers_first("111111", "222222", "333333")
    assert agent.ssh_add("-T", public).status == 1
    assert (card.wrong_pins, card.tries_left, len(askpass.questions)) == (3, 0, 3)
    explained = " ".join(agent.run(REPLUG, "explain").out.split())
    assert "the PIN is locked. What to do now: unblock it with the PUK" in explained


def test_clients_that_wait_share_the_second_question(
    agent: Agent, module: Path, card: Card, public: Path, askpass: Askpass
) -> None:
    assert agent.add_provider(module, "").status == 0, agent.log
    askpass.answers_first(WRONG, PIN)

    with ThreadPoolExecutor() as clients:
        uses = list(clients.map(lambda _: agent.ssh_add("-T", public), range(4)))

    assert [done.status for done in uses] == [0] * 4, (uses, agent.log)
    assert (card.wrong_pins, len(askpass.questions)) == (1, 2)
