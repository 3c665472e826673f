"""The units, and the agent as systemd starts it: a socket on fd 3, readiness by datagram."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rigs.home import Home
from rigs.softhsm import MODULE, Token
from rigs.terminal import Done, eventually

UNITS = Path(__file__).parents[2] / "systemd"
NO_IDENTITIES = Done(1, "The agent has no identities.\n", "")


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Path:
    """The program under test."""
    path: Path = request.config.getoption("agent")
    return path


def setting(unit: str, name: str) -> str:
    """The value of a setting that a unit has once."""
    (value,) = re.findall(rf"^{name}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)
    return str(value)


@pytest.fixture
def units(home: Home, program: Path) -> tuple[str, str]:
    """The names of the agent's units, in the home with all the others, with the program where it is."""
    for unit in UNITS.glob("replug-*"):
        # `replug reload` is beside replug-agent, whichever agent is under test.
        text = unit.read_text().replace("%h/.local/bin/replug-agent", str(program))
        text = text.replace("%h/.local/bin", str(Path(sys.executable).parent))
        home.write(unit.name, text)
    return "replug-agent.service", "replug-agent.socket"


def test_systemd_finds_no_fault_in_the_units(home: Home, units: tuple[str, str]) -> None:
    done = home.run("systemd-analyze", "verify", "--user", "--recursive-errors=no", *units)
    assert done == Done(0, "", "")


@pytest.fixture
def manager(home: Home) -> Iterator[socket.socket]:
    """The service manager's end of NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(home.folder / "notify"))
        manager.settimeout(20)
        home.env["NOTIFY_SOCKET"] = str(home.folder / "notify")
        yield manager


@contextmanager
def activated(home: Home, program: Path) -> Iterator[subprocess.Popen[str]]:
    """The service's command with a listening socket on fd 3, made as the socket unit says."""
    _, *arguments = setting("replug-agent.service", "ExecStart").split()
    (home.folder / "run" / "replug").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path(home)))
        listener.listen(4096)
        process = subprocess.Popen(
            # Only the new process knows its own process id.
            ["sh", "-c", 'LISTEN_PID=$$ exec "$@"', "-", program, *arguments],
            env=home.env | {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "agent"},
            preexec_fn=lambda: os.dup2(listener.fileno(), 3),
            pass_fds=[3],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()


def socket_path(home: Home) -> Path:
    """Where the socket unit listens."""
    path = setting("replug-agent.socket", "ListenStream")
    return Path(path.replace("%t", home.env["XDG_RUNTIME_DIR"]))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 2)])
def test_a_life_under_systemd(
    number: signal.Signals, status: int, home: Home, program: Path, manager: socket.socket
) -> None:
    with activated(home, program) as agent:
        assert "READY=1" in manager.recv(4096).decode().splitlines()
        assert home.run("ssh-add", "-l", env={"SSH_AUTH_SOCK": str(socket_path(home))}) == NO_IDENTITIES
        agent.send_signal(number)
        assert agent.wait(20) == status
        assert agent.stdout
        assert agent.stdout.read() == ""
    assert socket_path(home).is_socket()


def test_a_hangup_reads_the_configuration_again(home: Home, program: Path, manager: socket.socket) -> None:
    """Elsewhere it ends the agent, as it does ssh-agent."""
    with activated(home, program) as agent:
        address = {"SSH_AUTH_SOCK": str(socket_path(home))}
        assert home.run("ssh-add", "-l", env=address) == NO_IDENTITIES
        token = Token(home)
        token.add("p256")
        home.configure(f"modules = ['{MODULE}']")
        agent.send_signal(signal.SIGHUP)
        eventually(lambda: home.run("ssh-add", "-l", env=address).status == 0, "the configured token's keys")
        home.configure("nonsense")
        agent.send_signal(signal.SIGHUP)
        assert home.run("ssh-add", "-l", env=address).status == 0
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(20) == 0


def test_a_client_that_was_there_before_the_agent(home: Home, program: Path, manager: socket.socket) -> None:
    with activated(home, program):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(socket_path(home)))
            client.sendall(b"\0\0\0\1\x0b")
            assert client.recv(64) == b"\0\0\0\5\x0c\0\0\0\0"
        assert "READY=1" in manager.recv(4096).decode().splitlines()


def test_a_service_without_its_socket_listens_by_itself(
    home: Home, program: Path, manager: socket.socket
) -> None:
    with subprocess.Popen([program, "-D"], env=home.env, stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout
        path = agent.stdout.readline().removeprefix("SSH_AUTH_SOCK=").partition(";")[0]
        assert "READY=1" in manager.recv(4096).decode().splitlines()
        assert home.run("ssh-add", "-l", env={"SSH_AUTH_SOCK": path}) == NO_IDENTITIES
        agent.terminate()
        assert agent.wait(20) == 2
    assert not Path(path).exists()


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"LISTEN_FDS": "2", "LISTEN_PID": "$$"}, "LISTEN_FDS is '2'; the agent takes exactly one socket"),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "1"}, "LISTEN_PID is '1', but this is process "),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "x"}, "LISTEN_PID is 'x', but this is process "),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "$$"}, "LISTEN_FDS is set, but fd 3: Bad file descriptor"),
    ],
)
def test_a_broken_activation(variables: dict[str, str], reason: str, home: Home, program: Path) -> None:
    settings = " ".join(f"{name}={value}" for name, value in variables.items())
    done = home.run("sh", "-c", f'{settings} exec "$1" -D', "-", program)
    assert (done.status, done.out) == (255, "")
    assert done.err.startswith(f"replug-agent: {reason}")


@pytest.mark.parametrize("options", [["-a", "own"], ["true"]])
def test_activation_is_for_an_agent_that_may_use_it(options: list[str], home: Home, program: Path) -> None:
    """With a path or a command of its own, the agent does not look at LISTEN_FDS (ssh-agent.c main)."""
    settings = 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'
    done = home.run("sh", "-c", settings, "-", program, *options)
    assert done.status == 0
    for pid in re.findall(r"Agent pid (\d+)", done.out):
        os.kill(int(pid), signal.SIGTERM)


def test_under_systemd_socket_activate(home: Home, program: Path, manager: socket.socket) -> None:
    path = home.folder / "run" / "agent.sock"
    environment = [f"-E{name}" for name in home.env]
    with subprocess.Popen(
        ["systemd-socket-activate", f"--listen={path}", "--fdname=agent", *environment, program, "-D"],
        env=home.env,
        stderr=subprocess.PIPE,
        text=True,
    ) as agent:
        try:
            assert agent.stderr
            assert agent.stderr.readline().startswith("Listening on ")
            assert home.run("ssh-add", "-l", env={"SSH_AUTH_SOCK": str(path)}) == NO_IDENTITIES
            assert "READY=1" in manager.recv(4096).decode().splitlines()
            agent.terminate()
            assert agent.wait(20) == 0
        finally:
            agent.kill()
    assert path.is_socket()
