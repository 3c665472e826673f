"""A terminal that hangs, for whoever uses it, holds up nobody but the program that is asked for there."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from rigs import hung_terminal
from rigs.agent import (
    LIST_REQUEST,
    PIN_PROMPT,
    Agent,
    Connection,
    StartAgent,
    sign_request,
)
from rigs.faulty import Faulty
from rigs.home import Home
from rigs.softhsm import MODULE, PIN, Token
from rigs.terminal import eventually
from rigs.user_manager import UserManager

PROGRAM = Path(sys.executable).with_name("replug-agent")
ASKED = "asked for by ssh-add (pid"
PATIENCE = 3
"""Seconds that a question may stay unanswered."""
LONG = 4
"""Seconds; each of the threads that hold the terminal does so for five."""
HUNG = f"no PIN was entered within {PATIENCE} s: /dev/pts/"
UNANSWERED = f"no PIN was entered within {PATIENCE} s"
CONFIG = f"modules = []\nprompt_timeout = '{PATIENCE}s'\n"
PINENTRY = "prompt = 'pinentry'\npinentry_program = 'pinentry-tty'"
OPEN_MEMORY = """
for process in /proc/[0-9]*; do
    grep -qs 'replug-agen[t]' $process/cmdline || continue
    (: <$process/mem) 2>/dev/null && echo $process || echo closed
done
"""
Hang = Callable[[Agent, str], None]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, compiled."""
    return hung_terminal.build(tmp_path_factory.mktemp("hung_terminal"))


@pytest.fixture
def start(home: Home, start_agent: StartAgent, faulty: Faulty) -> Callable[[str], Agent]:
    """Starts an agent that has a token's key but not its PIN, and asks on terminals."""

    def start(config: str) -> Agent:
        home.configure(CONFIG + config)
        agent = start_agent("-P", "*", env=faulty.env)
        assert agent.add_provider(faulty.module, "").status == 0, agent.log
        return agent

    return start


@pytest.fixture
def hang(faulty: Faulty, built: Path, tmp_path: Path) -> Iterator[Hang]:
    """Has the user's own program ask for a signature on a terminal, until that hangs."""
    started: list[subprocess.Popen[str]] = []

    def hang(agent: Agent, when: str) -> None:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        one = subprocess.Popen(
            [built, folder, when, "ssh-add", "-T", faulty.public],
            env=agent.home.env | agent.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        started.append(one)
        assert one.stdout
        said = one.stdout.readline()
        if said.startswith("skip"):
            pytest.skip(said)
        assert said == "hung\n"

    yield hang
    for one in started:
        one.kill()
        one.communicate()


def longest_listing(agent: Agent, until: str) -> float:
    """The longest wait for a listing, in seconds, until that is in the log."""
    longest, end = 0.0, time.monotonic() + PATIENCE + 20
    with agent.connect() as connection:
        while until not in agent.log:
            begun = time.monotonic()
            assert begun < end, agent.log
            assert connection.ask(LIST_REQUEST)[:1] == b"\x0c"
            longest = max(longest, time.monotonic() - begun)
            time.sleep(0.01)
    return longest


@pytest.mark.parametrize(
    ("config", "when", "reason"),
    [("", "early", HUNG), ("", "late", HUNG), (PINENTRY, "early", HUNG), (PINENTRY, "late", UNANSWERED)],
)
def test_nobody_else_waits_for_it(
    start: Callable[[str], Agent], hang: Hang, faulty: Faulty, config: str, when: str, reason: str
) -> None:
    agent = start(config)
    hang(agent, when)
    assert longest_listing(agent, until=reason) < LONG

    done = agent.ssh_add("-T", faulty.public, typing=[(ASKED, PIN)])
    assert done.status == 0, (done, agent.log)


def test_a_write_that_does_not_end_costs_nobody_a_processor(
    start: Callable[[str], Agent], hang: Hang
) -> None:
    """poll(2) says all the while that there is room."""
    agent = start("")
    hang(agent, "write")
    computed: dict[int, float] = {}
    begun = None
    while UNANSWERED not in agent.log:
        computed |= {pid: seconds for pid in agent.processes if (seconds := cpu_time(pid)) is not None}
        begun = begun if begun is not None else sum(computed.values())
        time.sleep(0.05)
    assert begun is not None
    assert sum(computed.values()) - begun < PATIENCE / 2


def cpu_time(pid: int) -> float | None:
    """Seconds that a process has computed."""
    with suppress(OSError):
        return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3)
    return None


def test_the_agent_ends_though_a_process_cannot(home: Home, faulty: Faulty, hang: Hang) -> None:
    # Soon after, and before any of the threads that hold the terminal gives up, after five seconds.
    home.configure(CONFIG.replace(f"{PATIENCE}s", "1s"))
    agent = Agent(PROGRAM, home, "-P", "*", env=faulty.env)
    try:
        assert agent.add_provider(faulty.module, "").status == 0, agent.log
        hang(agent, "late")
        eventually(lambda: "does not respond" in agent.log, "a reason", within=20)
    finally:
        status = agent.stop()  # which does not wait for long
    assert status == 2


@pytest.mark.parametrize("config", ["", PINENTRY])
def test_the_agent_ends_though_a_question_stands_there(
    home: Home, faulty: Faulty, hang: Hang, config: str
) -> None:
    home.configure(CONFIG.replace(f"{PATIENCE}s", "60s") + config)
    agent = Agent(PROGRAM, home, "-P", "*", env=faulty.env)
    try:
        assert agent.add_provider(faulty.module, "").status == 0, agent.log
        hang(agent, "late")
    finally:
        status = agent.stop()  # which does not wait for long
    assert status == 2


def test_the_log_on_a_terminal_that_hangs_stops_nobody(home: Home, built: Path, tmp_path: Path) -> None:
    """It is the user's own, which any program of the user may open."""
    path = home.folder / "agent.sock"
    # The terminal is a shell's, as usual.
    one = subprocess.Popen(
        [built, tmp_path, "late", "sh", "-c", '"$@"; true', "-", PROGRAM, "-D", "-a", path],
        env=home.env,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert one.stdout
        lines = []
        while "hung\n" not in lines or len(lines) < 3:
            lines.append(one.stdout.readline())
            if lines[-1].startswith("skip"):
                pytest.skip(lines[-1])
        with Connection(path, timeout=LONG) as connection:
            for _ in range(1000):  # lines for which there is no room, in the end
                assert connection.ask(sign_request(b"no key"))[:1] == b"\x05"
        (started,) = (int(line.split()[-1].rstrip(";")) for line in lines if line.startswith("echo"))
        ended = os.pidfd_open(started)
        signal.pidfd_send_signal(ended, signal.SIGTERM)
        assert select.select([ended], [], [], 20)[0]
        os.close(ended)
    finally:
        one.kill()
        one.communicate()


def test_a_log_in_the_background_after_stty_tostop_does_not_stop_the_agent(home: Home) -> None:
    path = home.folder / "agent.sock"
    script = 'set -m; stty tostop; "$@" & echo $! >pid; wait $!'
    shell, screen = pty.fork()
    if shell == 0:
        os.chdir(home.folder)
        os.execvpe("sh", ["sh", "-c", script, "-", PROGRAM, "-D", "-a", path], home.env)
    try:
        eventually(path.exists, "a socket", within=30)
        done = home.run("ssh-add", "-l", env={"SSH_AUTH_SOCK": str(path)}, timeout=20)
        assert (done.status, done.out) == (1, "The agent has no identities.\n")
    finally:
        os.kill(int((home.folder / "pid").read_text()), signal.SIGTERM)
        status = os.waitpid(shell, 0)[1]
        os.close(screen)
    assert os.waitstatus_to_exitcode(status) == 2


# Each starts an agent in a session of the user's, and returns what a client needs in its environment.
def as_service(session: UserManager) -> dict[str, str]:
    assert session.replug("setup").status == 0
    return {"SSH_AUTH_SOCK": session.environment()["SSH_AUTH_SOCK"]}


def as_daemon(session: UserManager) -> dict[str, str]:
    lines = session.run(PROGRAM, "-s").out
    return {"SSH_AUTH_SOCK": lines.removeprefix("SSH_AUTH_SOCK=").partition(";")[0]}


@pytest.mark.parametrize("start", [as_service, as_daemon])
def test_an_ordinary_users_agent(
    home: Home,
    log_in: Callable[[], UserManager],
    built: Path,
    start: Callable[[UserManager], dict[str, str]],
) -> None:
    Token(home).add("p256", "key")
    home.configure(CONFIG)
    home.write("hung_terminal", built.read_bytes(), 0o755)
    (home.folder / "empty").mkdir()
    session = log_in()
    env = start(session)
    assert session.run("ssh-add", "-s", MODULE, env=env, typing=[(PIN_PROMPT, "")]).status == 0
    assert session.run("sh", "-c", "ssh-add -L >key.pub", env=env).status == 0

    hung = session.start("./hung_terminal", "empty", "early", "ssh-add", "-T", "key.pub", env=env)
    assert hung.stdout
    said = hung.stdout.readline().decode()
    if said.startswith("skip"):
        pytest.skip(said)
    assert said == "hung\n"

    def listing() -> str:
        begun = time.monotonic()
        assert session.run("ssh-add", "-L", env=env).status == 0
        assert time.monotonic() - begun < 2 * LONG
        return session.replug("explain", env=env).out

    eventually(lambda: HUNG in listing(), f"a reason, but {listing()}", within=PATIENCE + 20)
    # On a terminal that is the user's own, too.
    asked = session.start("script", "-qec", "ssh-add -T key.pub", "/dev/null", env=env)
    assert asked.stdin
    assert asked.stdout
    shown = b""
    while ASKED.encode() not in shown:
        shown += (piece := asked.stdout.read1())
        assert piece, shown
    # Started, forked, the worker, and what reads the PIN: nobody opens their memory.
    seen = session.run("sh", "-c", OPEN_MEMORY).out.splitlines()
    assert len(seen) >= 4
    assert set(seen) == {"closed"}
    asked.stdin.write(f"{PIN}\n".encode())
    asked.stdin.flush()
    assert asked.wait(timeout=60) == 0
