"""The program under another name: a link called ssh-agent is for all that starts and counts on ssh-agent."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rigs.agent import Agent, StartAgent
from rigs.askpass import Askpass
from rigs.home import Home
from rigs.key_files import make_key, public_of
from rigs.registered import Registered
from rigs.softhsm import MODULE, PIN, Token
from rigs.terminal import Done, eventually

REPLUG_AGENT = Path(sys.executable).with_name("replug-agent")
REPLUG = REPLUG_AGENT.with_name("replug")
NO_IDENTITIES = Done(1, "The agent has no identities.\n", "")


@pytest.fixture
def link(home: Home) -> Path:
    """A link to the program."""
    path = home.folder / "ssh-agent"
    path.symlink_to(REPLUG_AGENT)
    return path


@pytest.fixture
def start(home: Home, link: Path, askpass: Askpass, start_agent: StartAgent) -> Callable[[], Agent]:
    """Starts it where a token is plugged in whose module is registered."""
    registered = Registered(home)
    registered.register("softhsm2", f"module: {MODULE}")
    Token(home).add("p256")
    program = registered.program(link)
    return lambda: start_agent(program=program, env=askpass.env)


def configuration(home: Home) -> Path:
    """The configuration file, in which nothing stands."""
    return home.configure("")


def test_only_what_was_added_is_listed(home: Home, start: Callable[[], Agent]) -> None:
    configuration(home).unlink()
    agent = start()
    assert agent.ssh_add("-l") == NO_IDENTITIES
    assert agent.ssh_add(make_key(home, "key")).status == 0
    assert len(agent.ssh_add("-l").lines) == 1
    assert agent.add_provider(MODULE, PIN).status == 0, agent.log
    assert len(agent.ssh_add("-l").lines) == 2


def test_the_configuration_may_say_what_else(home: Home, start: Callable[[], Agent]) -> None:
    file = configuration(home)
    agent = start()
    assert agent.ssh_add("-l") == NO_IDENTITIES
    file.write_text('modules = ["auto"]\n')
    assert agent.run(REPLUG, "reload").status == 0
    eventually(lambda: agent.ssh_add("-L").out.endswith(" p256\n"), "the token's key is served")
    file.write_text("workers = 1\n")
    assert agent.run(REPLUG, "reload").status == 0
    assert agent.ssh_add("-l") == NO_IDENTITIES


def test_what_it_says_bears_the_name(home: Home, link: Path) -> None:
    usage = home.run(REPLUG_AGENT, "-x").err
    assert home.run(link, "-x").err == usage.replace("replug-agent", "ssh-agent").replace(
        "\n                    [", "\n                 ["
    )
    assert home.run(link, "-E", "sha3") == Done(255, "", 'ssh-agent: Invalid hash algorithm "sha3"\n')


@pytest.mark.parametrize("name", ["ssh-agent", "replug-agent"])
def test_it_is_found_by_the_name(name: str, home: Home, start_agent: StartAgent) -> None:
    program = home.folder / name
    if not program.exists():
        program.symlink_to(REPLUG_AGENT)
    agent = start_agent(program=program)
    agent.ssh_add("-l")  # it has forked then
    for finder in ("pidof", "pgrep"):
        assert shutil.which(finder), f"{finder} is missing"
        found = home.run(finder, *(["-x"] if finder == "pgrep" else []), name).out.split()
        assert str(agent.process.pid) in found, finder
        assert str(agent.pid) in found, finder
    command = Path(f"/proc/{agent.pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    assert command == [name.encode(), b"-D", b"-a", str(agent.socket).encode()]


def test_keychain_starts_it_and_finds_it_from_the_next_shell(home: Home) -> None:
    key = make_key(home, "key")
    folder = home.folder / "programs"
    folder.mkdir()
    (folder / "ssh-agent").symlink_to(REPLUG_AGENT)
    path = {"PATH": f"{folder}:{home.env['PATH']}"}

    def shell() -> tuple[str, ...]:
        done = home.run("keychain", "--quiet", "--eval", key, env=path)
        assert done.status == 0, done
        said = re.search(r"SSH_AUTH_SOCK=([^;]*);.*SSH_AGENT_PID=([^;]*);", done.out, re.DOTALL)
        assert said, done
        return said.groups()

    socket, pid = shell()
    try:
        environment = {"SSH_AUTH_SOCK": socket, "SSH_AGENT_PID": pid}
        assert home.run(REPLUG, "status", env=environment).status == 0  # OpenSSH's has no answer to that
        assert shell() == (socket, pid)
        assert home.run("ssh-add", "-T", public_of(key), env=environment).status == 0
    finally:
        killed = home.run(folder / "ssh-agent", "-k", env={"SSH_AGENT_PID": pid})
    assert killed.status == 0, killed


def test_a_link_in_a_folder_with_blanks(home: Home) -> None:
    folder = home.folder / "a b"
    folder.mkdir()
    (folder / "ssh-agent").symlink_to(REPLUG_AGENT)
    done = home.run(folder / "ssh-agent", "ssh-add", "-l")
    assert done == NO_IDENTITIES
    started = home.run(folder / "ssh-agent", "-s")
    pid = int(started.out.partition("SSH_AGENT_PID=")[2].partition(";")[0])
    killed = home.run(folder / "ssh-agent", "-k", env={"SSH_AGENT_PID": str(pid)})
    assert killed.out.endswith(f"echo Agent pid {pid} killed;\n")
