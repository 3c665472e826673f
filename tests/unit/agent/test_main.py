"""What has happened by the time the event loop starts, and what happens after it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rigs.home import Home
from rigs.terminal import eventually

PROGRAM = [sys.executable, str(Path(__file__).parents[2] / "doubles" / "cli_with_stand_in.py")]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def home() -> Iterator[Home]:
    home = Home()
    yield home
    home.remove()


@pytest.fixture
def report(home: Home) -> Callable[[], dict[str, Any]]:
    """Reads what the stand-in has to say, when it says it."""
    path = home.folder / "report"
    os.mkfifo(path)
    home.env["REPORT"] = str(path)
    # Open at both ends, so that neither the writer nor, without one, the test's end has to wait.
    pipe = os.open(path, os.O_RDWR)

    def read() -> dict[str, Any]:
        data = b""
        while True:
            ready, _, _ = select.select([pipe], [], [], 60)
            assert ready, f"the stand-in has said nothing but {data!r}"
            data += os.read(pipe, 65536)
            try:
                said: dict[str, Any] = json.loads(data)
            except ValueError:
                continue
            return said

    return read


@pytest.fixture
def run(home: Home) -> Run:
    """Runs the program to its end: `run("-D", env={...})`."""

    def run(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> Any:
        return subprocess.run(
            [*PROGRAM, *arguments],
            env=home.env | (env or {}),
            cwd=home.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )

    return run


@contextmanager
def running(home: Home, *arguments: str, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        env=home.env | env,
        cwd=home.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def sockets(home: Home) -> list[str]:
    return [path.name for path in home.folder.rglob("*") if path.is_socket()]


def test_a_daemon(home: Home, run: Run, report: Callable[[], dict[str, Any]]) -> None:
    done = run("-s", stdin=subprocess.PIPE)

    assert (done.returncode, done.stderr) == (0, "")
    said = report()
    path, pid = said["address"], said["pid"]
    assert done.stdout == (
        f"SSH_AUTH_SOCK={path}; export SSH_AUTH_SOCK;\n"
        f"SSH_AGENT_PID={pid}; export SSH_AGENT_PID;\n"
        f"echo Agent pid {pid};\n"
    )
    assert Path(path).parent == home.folder / ".ssh" / "agent"
    assert said["session"] == pid
    assert said["folder"] == "/"
    assert said["fds"] == said["null"] == [0, 1, 2]
    assert said["client"] is None
    assert said["foreground"] is False
    assert {"SIGINT", "SIGPIPE"} <= set(said["ignored"])


def test_in_the_foreground(home: Home, run: Run, report: Callable[[], dict[str, Any]]) -> None:
    done = run("-D", env={"STAND_IN": "status = 42"}, stdin=subprocess.PIPE)

    assert (done.returncode, done.stderr) == (42, "")
    said = report()
    path, pid = said["address"], said["pid"]
    assert done.stdout == f"SSH_AUTH_SOCK={path}; export SSH_AUTH_SOCK;\necho Agent pid {pid};\n"
    assert said["session"] != pid
    assert said["folder"] == str(home.folder)
    assert (said["fds"], said["null"]) == ([0, 1, 2], [])
    assert said["client"] is None
    assert said["foreground"] is True
    assert "SIGINT" not in said["ignored"]
    assert "SIGPIPE" in said["ignored"]


@pytest.mark.parametrize("arguments", [("-s",), ("-D",), ("sh", "-c", ":")])
def test_every_agent_is_hardened(
    arguments: tuple[str, ...], run: Run, report: Callable[[], dict[str, Any]]
) -> None:
    assert run(*arguments).returncode == 0
    said = report()
    assert said["dumpable"] == 0
    assert said["core"] == [0, 0]
    assert said["blocked"] == []


def test_little_is_imported_before_the_socket_listens(
    home: Home, run: Run, report: Callable[[], dict[str, Any]]
) -> None:
    (home.folder / ".config" / "replug" / "config.toml").unlink()  # who has none pays for none
    assert run("-D").returncode == 0
    heavy = {"argparse", "asyncio", "cryptography", "logging", "paramiko", "pkcs11", "pyudev", "subprocess"}
    assert heavy.intersection(report()["modules"]) == set()


def test_a_command_has_an_agent_that_knows_it(
    home: Home, run: Run, report: Callable[[], dict[str, Any]]
) -> None:
    done = run("sh", "-c", "echo $$ $SSH_AGENT_PID $SSH_AUTH_SOCK; exit 7")

    said = report()
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout == f"{said['client']} {said['pid']} {said['address']}\n"
    assert said["session"] == said["pid"]
    assert said["foreground"] is False


def test_the_options_reach_the_event_loop(home: Home, run: Run, report: Callable[[], dict[str, Any]]) -> None:
    home.configure('touch_timeout = "1m"\nwait_for_token = "20s"\n')
    assert run("-D", "-t", "2m", "-P/opt/*", "-E", "md5", "-O", "allow-remote-pkcs11").returncode == 0
    options = report()["options"]
    config = options.pop("config")
    assert (config["touch_timeout"], config["wait_for_token"], config["workers"]) == (60, 20, 1)
    assert options == {
        "default_lifetime": 120,
        "provider_patterns": "/opt/*",
        "allow_remote_pkcs11": True,
        "restrict_websafe": True,
        "websafe_allow": "ssh:*",
        "fingerprint_hash": "md5",
        "debug": False,
        "socket_activated": False,
        "modules": ["auto"],
        "given": ["-D", "-E", "-O", "-P", "-t"],
    }


def test_the_configuration_speaks_where_the_command_line_is_silent(
    home: Home, run: Run, report: Callable[[], dict[str, Any]]
) -> None:
    home.configure('default_lifetime = "1h"\nallowed_modules = "/opt/*"\n')
    assert run("-D").returncode == 0
    options = report()["options"]
    assert (options["default_lifetime"], options["provider_patterns"]) == (3600, "/opt/*")


def test_a_broken_configuration_is_said_before_there_is_an_agent(home: Home, run: Run) -> None:
    file = home.configure("touch = 3\n")
    done = run("-s")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"replug-agent: {file}:1: unknown key 'touch'")
    assert not list(home.folder.glob(".ssh/agent/*"))


def test_inherited_files_are_closed_for_the_agent_only(
    run: Run, report: Callable[[], dict[str, Any]]
) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    done = run(sys.executable, "-c", f"import os; os.write({writing}, b'kept')", pass_fds=[writing])
    os.close(writing)
    assert done.stderr == ""
    assert report()["fds"] == [0, 1, 2]
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "kept"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(
    closed: str, home: Home, run: Run, report: Callable[[], dict[str, Any]]
) -> None:
    home.env |= {"PYTHON": PROGRAM[0], "SCRIPT": PROGRAM[1]}
    done = subprocess.run(
        ["sh", "-c", f'"$PYTHON" "$SCRIPT" -s {closed}'], env=home.env, capture_output=True, check=False
    )
    assert done.returncode == 0
    said = report()
    assert said["fds"] == said["null"] == [0, 1, 2]


def test_a_mistake_said_to_nobody(home: Home) -> None:
    home.env |= {"PYTHON": PROGRAM[0], "SCRIPT": PROGRAM[1]}
    done = subprocess.run(
        ["sh", "-c", '"$PYTHON" "$SCRIPT" -E sha3 2>&-'], env=home.env, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (255, b"")


@pytest.mark.parametrize("arguments", [("-D",), ("-D", "-T"), ("-D", "-a", "here")])
def test_the_socket_is_removed_at_the_end(
    arguments: tuple[str, ...], home: Home, run: Run, report: Callable[[], dict[str, Any]]
) -> None:
    before = sorted(home.folder.glob("tmp/*"))
    assert run(*arguments).returncode == 0
    assert Path(report()["address"]).name not in ("", *sockets(home))
    assert sorted(home.folder.glob("tmp/*")) == before


def test_a_relative_path_is_found_again_from_another_folder(
    home: Home, run: Run, report: Callable[[], dict[str, Any]]
) -> None:
    done = run("-D", "-a", "here", env={"STAND_IN": "import os; os.chdir('/')"})
    assert done.stdout.startswith("SSH_AUTH_SOCK=here;")
    assert report()["address"] == str(home.folder / "here")
    assert sockets(home) == []


def test_another_agents_socket_is_not_removed(home: Home, run: Run) -> None:
    replaced = "import os, socket; os.unlink('here'); socket.socket(socket.AF_UNIX).bind('here')"
    home.env["REPORT"] = os.devnull
    assert run("-D", "-a", "here", env={"STAND_IN": replaced}).returncode == 0
    assert sockets(home) == ["here"]


def test_a_forked_child_does_not_remove_the_socket(home: Home, run: Run) -> None:
    home.env["REPORT"] = os.devnull
    fork = """
import os, sys
child = os.fork()
if child == 0:
    sys.exit(9)
_, waited = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(waited) == 9
status = 0 if os.path.exists("here") else 1
"""
    assert run("-D", "-a", "here", env={"STAND_IN": fork}).returncode == 0
    assert sockets(home) == []


@pytest.mark.parametrize("arguments", [("-s",), ("-D",)])
@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ("raise ModuleNotFoundError('no cheese')", "replug-agent: ModuleNotFoundError: no cheese\n"),
        ("open('/nonexistent/file')", "replug-agent: /nonexistent/file: No such file or directory\n"),
    ],
)
def test_a_failure_on_the_way_to_the_loop_is_said(
    arguments: tuple[str, ...], failure: str, words: str, home: Home, run: Run
) -> None:
    done = run(*arguments, env={"STAND_IN_IMPORT": failure})
    assert done.stderr == words
    assert done.returncode == (1 if arguments == ("-D",) else 0)
    eventually(lambda: sockets(home) == [], "the socket is removed")


def test_a_failing_event_loop_is_said(home: Home, run: Run) -> None:
    home.env["REPORT"] = os.devnull
    done = run("-D", env={"STAND_IN": "raise RuntimeError('out of cheese')"})
    assert (done.returncode, done.stderr) == (1, "replug-agent: RuntimeError: out of cheese\n")
    assert sockets(home) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_an_agent_that_crashes_leaves_no_socket(number: signal.Signals, home: Home, run: Run) -> None:
    home.env["REPORT"] = os.devnull
    crash = f"import os; os.kill(os.getpid(), {number.value})"
    assert run("-D", env={"STAND_IN": crash}).returncode == -number
    assert sockets(home) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_before_the_loop_handles_any(number: signal.Signals, home: Home) -> None:
    # Not signal.pause(): a signal that comes just before it does not end it.
    halted = "import time\nprint('importing', flush=True)\nwhile True: time.sleep(0.01)"
    with running(home, "-D", env={"STAND_IN_IMPORT": halted}) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while process.stdout.readline() != "importing\n":
            assert process.poll() is None
        assert len(sockets(home)) == 1
        process.send_signal(signal.SIGUSR1)  # must not end it
        process.send_signal(number)
        assert process.wait(30) == 2
        assert process.stderr.read() == ""
    assert sockets(home) == []


def test_a_signal_in_a_destructor_ends_it_too(home: Home) -> None:
    """Where Python drops exceptions, as in the callbacks of import's locks."""
    destructor = """
import time
class Last:
    def __del__(self):
        import time
        print('importing', flush=True)
        time.sleep(30)
Last()
while True: time.sleep(0.01)
"""
    with running(home, "-D", env={"STAND_IN_IMPORT": destructor}) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "importing\n":
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 2
    assert sockets(home) == []


def test_a_signal_as_soon_as_there_is_a_process(home: Home, run: Run) -> None:
    at_once = """
import os, signal
fork = os.fork
def fork_and_signal():
    pid = fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGTERM)
    return pid
os.fork = fork_and_signal
"""
    assert run("-s", env={"STAND_IN_START": at_once}).returncode == 0
    eventually(lambda: sockets(home) == [], "the socket is removed")


def run_activated(home: Home, run: Run, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs the program with a listening socket on fd 3."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home.folder / "activated"))
        listener.listen()
        # Only the new process knows its own process id.
        variables = {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "agent", "STAND_IN_START": KNOW_OWN_PID} | env
        return run("-D", env=variables, preexec_fn=lambda: os.dup2(listener.fileno(), 3), pass_fds=[3])


KNOW_OWN_PID = "os.environ['LISTEN_PID'] = str(os.getpid())"


def test_a_socket_activated_agent(home: Home, run: Run, report: Callable[[], dict[str, Any]]) -> None:
    done = run_activated(home, run)
    said = report()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert said["address"] == str(home.folder / "activated")
    assert said["options"]["socket_activated"] is True
    assert said["listen"] == []
    assert sockets(home) == ["activated"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGHUP, 2), (signal.SIGINT, 2)])
def test_a_signal_before_an_activated_loop_handles_any(
    number: signal.Signals, status: int, home: Home, run: Run
) -> None:
    done = run_activated(home, run, STAND_IN_IMPORT=f"os.kill(os.getpid(), {number.value})")
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    assert sockets(home) == ["activated"]
