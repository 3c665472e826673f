"""Where the agent asks: where the program runs that needs the key, not where the agent was started."""

from __future__ import annotations

import pytest
from rigs.agent import Agent, StartAgent
from rigs.faulty import Faulty
from rigs.home import Home
from rigs.softhsm import PIN
from rigs.sshd import Server, only

CKR_OK = 0x0
ASKED = "asked for by ssh-add (pid"

PINENTRY = """#!/bin/sh
echo "DISPLAY=$DISPLAY" >>{told}
echo OK
while read -r line; do
    echo "$line" >>{told}
    [ "$line" != GETPIN ] || echo D {pin}
    echo OK
done
"""


class Pinentry:
    """A pinentry in a folder that goes into the agent's PATH."""

    def __init__(self, home: Home, name: str) -> None:
        (home.folder / "bin").mkdir()
        self._told = home.write("told", "")
        home.write(f"bin/{name}", PINENTRY.format(told=self._told, pin=PIN), 0o700)
        self.env = {"PATH": f"{home.folder}/bin:{home.env['PATH']}"}

    @property
    def told(self) -> list[str]:
        return self._told.read_text().splitlines()


@pytest.fixture
def pinentry(home: Home) -> Pinentry:
    return Pinentry(home, "pinentry")


@pytest.fixture
def headless_agent(start_agent: StartAgent, faulty: Faulty, pinentry: Pinentry) -> Agent:
    """An agent with a token's key but not its PIN, started with no display, no terminal and no askpass."""
    agent = start_agent("-P", "*", env=faulty.env | pinentry.env)
    assert agent.add_provider(faulty.module, "").status == 0, agent.log
    return agent


def test_on_the_terminal_of_the_program(headless_agent: Agent, faulty: Faulty, pinentry: Pinentry) -> None:
    done = headless_agent.ssh_add("-T", faulty.public, typing=[(ASKED, PIN)])
    assert done.status == 0, (done, headless_agent.log)
    assert faulty.returns("C_Login") == [CKR_OK]
    assert pinentry.told == []


def test_on_the_terminal_of_a_login(headless_agent: Agent, faulty: Faulty, server: Server) -> None:
    server.authorize(faulty.public)
    ssh = ("ssh", "-F", server.client_config, *only(faulty.public), "host", "echo in")
    done = headless_agent.run(*ssh, typing=[("asked for by ssh (pid", PIN)])
    assert (done.status, done.out) == (0, "in\n"), (done, server.log, headless_agent.log)


def test_on_the_display_of_the_program(headless_agent: Agent, faulty: Faulty, pinentry: Pinentry) -> None:
    done = headless_agent.run("env", "DISPLAY=:3", "ssh-add", "-T", faulty.public)
    assert done.status == 0, (done, headless_agent.log)
    assert faulty.returns("C_Login") == [CKR_OK]
    assert pinentry.told[:2] == ["DISPLAY=:3", "OPTION display=:3"]
    [description] = [line for line in pinentry.told if line.startswith("SETDESC ")]
    assert description.startswith('SETDESC PIN for token "faulty" (serial ')
    assert "%0Ato use the key faulty-p256%0Adata of 1024 bytes that is no login" in description
    assert f"%0A{ASKED}" in description


def test_the_pinentry_that_is_there(start_agent: StartAgent, faulty: Faulty, home: Home) -> None:
    """As on a desktop where none is called plainly pinentry."""
    pinentry = Pinentry(home, "pinentry-gnome3")
    agent = start_agent("-P", "*", env=faulty.env | {"PATH": f"{home.folder}/bin", "DISPLAY": ":3"})
    assert agent.add_provider(faulty.module, "").status == 0, agent.log
    done = agent.run("ssh-add", "-T", faulty.public)
    assert done.status == 0, (done, agent.log)
    assert "GETPIN" in pinentry.told


def test_cancelled_on_the_terminal(headless_agent: Agent, faulty: Faulty) -> None:
    done = headless_agent.ssh_add("-T", faulty.public, typing=[(ASKED, "\x03")])
    assert done.status == 1
    assert faulty.returns("C_Login") == []
    assert "the PIN prompt was cancelled" in headless_agent.log


def test_a_job_in_the_background_is_refused_with_a_reason(headless_agent: Agent, faulty: Faulty) -> None:
    script = f"ssh-add -T {faulty.public} & wait $!"
    done = headless_agent.run("sh", "-mc", script, typing=[("", "")])
    assert done.status == 1
    assert (
        "the PIN is needed and there is no way to ask for it: there is no display "
        "(DISPLAY, WAYLAND_DISPLAY); the program is not in the foreground of /dev/pts/"
    ) in headless_agent.log
