"""`replug status` with an agent that nobody has started yet."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from rigs.agent import OPENSSH, StartAgent
from rigs.doctor import REPLUG
from rigs.home import Home
from rigs.terminal import eventually


def test_an_agent_that_is_started_on_demand(home: Home, request: pytest.FixtureRequest) -> None:
    program: Path = request.config.getoption("agent")
    path = home.folder / "agent.sock"
    with subprocess.Popen(
        ["systemd-socket-activate", f"--listen={path}", "--fdname=agent", program, "-D"],
        env=home.env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as manager:  # fmt: skip
        try:
            eventually(path.is_socket, "the socket is there")
            done = home.run(REPLUG, "status", env={"SSH_AUTH_SOCK": str(path)})
        finally:
            manager.terminate()
    assert (done.status, done.err) == (0, "")
    # It becomes the agent.
    assert done.out.splitlines()[0] == f"replug-agent (pid {manager.pid}) on {path}"


def test_another_agent_is_not_asked_twice(home: Home, start_agent: StartAgent) -> None:
    other = start_agent(program=OPENSSH)
    done = other.run(REPLUG, "status")
    assert (done.status, done.out) == (1, "")
    assert (
        done.err == f"replug: SSH_AUTH_SOCK is {other.socket}, where OpenSSH's ssh-agent answers, not"
        " replug-agent; replug doctor suggests a fix\n"
    )
