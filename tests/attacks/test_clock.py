"""A clock that is set while the agent runs: lifetimes end all the same, and logins go on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from rigs.agent import Agent, StartAgent
from rigs.home import Home
from rigs.key_files import make_key, public_of
from rigs.sshd import USER, Server
from rigs.terminal import eventually

HOUR = 3600


@pytest.fixture
def clock(home: Home) -> Path:
    """The library that sets the clock of an agent by the seconds in the file `clock`."""
    library = home.folder / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", library, source, "-ldl"], check=True
    )
    return library


@pytest.fixture
def start_agent(start_agent: StartAgent, home: Home, clock: Path) -> StartAgent:
    """Starts agents whose clock is right until it is `set_by`."""
    env = {"LD_PRELOAD": str(clock), "CLOCK_SET_BY": str(home.folder / "clock")}
    return lambda *options: start_agent(*options, env=env)


def set_by(home: Home, seconds: int) -> None:
    home.write("clock.new", str(seconds)).rename(home.folder / "clock")


def test_a_login_gets_a_certificate_that_is_good(home: Home, start_agent: StartAgent) -> None:
    ca = make_key(home, "ca")
    server = Server(home, f"TrustedUserCAKeys {public_of(ca)}")
    keys = (public_of(ca), server.host_key)
    signs, host = (home.run("ssh-keygen", "-lf", key).out.split()[1] for key in keys)
    names = f'ca = ["{signs}"]\nhosts = ["{host}"]\nprincipals = ["{USER}"]'
    home.configure(f'modules = []\n[[certificate]]\n{names}\nlifetime = "4h"')
    agent = start_agent()
    assert agent.ssh_add("-q", ca).status == 0
    for seconds in (0, -HOUR, 0, HOUR, 0):
        set_by(home, seconds)
        for _ in range(2):  # the second one is listed what the first one was
            assert server.login(agent).status == 0, (seconds, agent.log, server.log)


def test_a_lifetime_ends_though_the_clock_was_set_back(home: Home, start_agent: StartAgent) -> None:
    agent = start_agent()
    set_by(home, 100 * HOUR)
    assert agent.ssh_add("-q", "-t", "2", make_key(home, "short")).status == 0
    set_by(home, 0)
    assert agent.ssh_add("-q", "-t", "1h", make_key(home, "long")).status == 0
    set_by(home, 100 * HOUR)

    def listed(agent: Agent) -> list[str]:
        return [line.split()[2] for line in agent.ssh_add("-l").out.splitlines()]

    eventually(lambda: "short" not in listed(agent), "the lifetime ends", 30)
    assert listed(agent) == ["long"]
