"""Where the asking process is, read from real processes, and what is not believed of what they say."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from doubles.screen import Screen
from rigs.agent import descendants
from rigs.terminal import eventually

from replug.token.errors import NobodyAskedError
from replug.token.prompts.environment import environment_of
from replug.token.prompts.place import Place, Terminal, find_place
from replug.token.prompts.processes import Process
from replug.token.prompts.terminal_program import free_terminal

OWN = {"DISPLAY": ":7", "SSH_ASKPASS": "/own/askpass", "PATH": "/own", "LANG": "C.UTF-8", "HOME": "/own"}
AGENTS_OWN = Place({"DISPLAY": ":7", "LANG": "C.UTF-8"}, None, certain=False)

Start = Callable[..., int]


@pytest.fixture
def start(screen: Screen) -> Iterator[Start]:
    """Starts a process and gives its number; it ends with the test, before the screen does."""
    processes = []

    def start(*argv: str, env: dict[str, str] | None = None, screen: Screen | None = None) -> int:
        def take_terminal() -> None:
            if screen is not None:
                fcntl.ioctl(screen.keyboard, termios.TIOCSCTTY, 0)

        process = subprocess.Popen(
            argv or ("sleep", "600"),
            env={"PATH": os.environ["PATH"]} if env is None else env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        processes.append(process)
        # For a moment in its execve(2) a process has no environment.
        environment = Path(f"/proc/{process.pid}/environ")
        eventually(lambda: env == {} or environment.read_bytes(), "an environment")
        return process.pid

    yield start
    for process in processes:
        for pid in [*descendants(process.pid), process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def child_of(pid: int) -> int:
    """The first child, once there is one."""
    file = Path(f"/proc/{pid}/task/{pid}/children")
    eventually(file.read_text, "a child")
    return int(file.read_text().split()[0])


def test_display_and_terminal_of_the_process(start: Start, screen: Screen) -> None:
    pid = start(env={"DISPLAY": ":3", "XAUTHORITY": "/home/me/.Xauthority", "TERM": "xterm"}, screen=screen)
    assert find_place(pid, OWN, environment_of) == Place(
        {"DISPLAY": ":3", "XAUTHORITY": "/home/me/.Xauthority", "TERM": "xterm"},
        Terminal(screen.path, os.fstat(screen.keyboard).st_rdev, pid),
    )


def test_its_place_takes_the_place_of_the_agents_own_as_a_whole(start: Start, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    pid = start(env={"WAYLAND_DISPLAY": "wayland-1", "XDG_RUNTIME_DIR": str(tmp_path)})
    own = OWN | {"XAUTHORITY": "/own/auth", "XDG_RUNTIME_DIR": "/own/run"}
    assert find_place(pid, own, environment_of).in_full(own) == {
        "WAYLAND_DISPLAY": "wayland-1",
        "XDG_RUNTIME_DIR": str(tmp_path),
        "SSH_ASKPASS": "/own/askpass",
        "PATH": "/own",
        "LANG": "C.UTF-8",
        "HOME": "/own",
    }


@pytest.mark.parametrize(
    "said",
    [
        {"SSH_ASKPASS": "/evil/askpass"},
        {"PATH": "/evil"},
        {"LD_PRELOAD": "/evil.so"},
        {"GTK_MODULES": "evil"},
        {"QT_PLUGIN_PATH": "/evil"},
        {"TERMINFO": "/evil"},
        {"GPG_TTY": "/dev/pts/0"},
        {"SSH_TTY": "/dev/pts/0"},
        {"HOME": "/evil"},
        {"DISPLAY": "evil.example.org:0"},
        {"DISPLAY": ":0;evil"},
        {"DISPLAY": "/evil/socket"},
        {"WAYLAND_DISPLAY": "/evil/socket"},
        {"XAUTHORITY": "relative"},
        {"XDG_RUNTIME_DIR": "relative"},
        {"XDG_RUNTIME_DIR": "/nonexistent"},
        {"XDG_RUNTIME_DIR": "/tmp"},  # everybody can write there
        {"DBUS_SESSION_BUS_ADDRESS": "unixexec:path=/evil"},
        {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/bus;unixexec:path=/evil"},
        {"DBUS_SESSION_BUS_ADDRESS": "tcp:host=evil.example.org,port=1"},
        {"TERM": "../../evil"},
        {"LANG": "/evil"},
        {"LC_ALL": "/evil"},
        {"SSH_ASKPASS_REQUIRE": "anything"},
    ],
)
def test_what_is_not_believed(start: Start, said: dict[str, str]) -> None:
    pid = start("/bin/sleep", "600", env={"DISPLAY": ":3", "TERM": "xterm"} | said)
    believed = find_place(pid, {}, environment_of).environment
    for name, value in said.items():
        assert believed.get(name) != value


@pytest.mark.parametrize("display", [":0", ":12.1", "localhost:10.0", "unix:0", "127.0.0.1:10"])
def test_displays_of_this_machine(start: Start, display: str) -> None:
    assert find_place(start(env={"DISPLAY": display}), {}, environment_of).environment == {"DISPLAY": display}


def test_a_process_without_an_environment_is_where_its_parent_is(start: Start, screen: Screen) -> None:
    shell = start("/bin/sh", "-c", "env -i sleep 600 & wait", env={"DISPLAY": ":3"}, screen=screen)
    place = find_place(child_of(shell), OWN, environment_of)
    assert place.environment["DISPLAY"] == ":3"
    assert place.terminal == Terminal(screen.path, os.fstat(screen.keyboard).st_rdev, child_of(shell))


def test_a_process_with_a_session_of_its_own_is_where_its_parent_is(start: Start, screen: Screen) -> None:
    shell = start("/bin/sh", "-c", "setsid sleep 600 & wait", env={"TERM": "xterm"}, screen=screen)
    terminal = find_place(child_of(shell), OWN, environment_of).terminal
    assert terminal is not None
    assert terminal.path == screen.path


def test_a_job_in_the_background_has_its_terminal_but_may_not_use_it(start: Start, screen: Screen) -> None:
    shell = start("/bin/sh", "-mc", "sleep 600 & wait", env={"TERM": "xterm"}, screen=screen)
    terminal = find_place(child_of(shell), OWN, environment_of).terminal
    assert terminal == Terminal(screen.path, os.fstat(screen.keyboard).st_rdev, child_of(shell))
    with pytest.raises(NobodyAskedError, match="not in the foreground"), free_terminal(terminal):
        pass


def test_whether_it_is_in_the_background_is_seen_when_its_terminal_is_used(
    start: Start, screen: Screen
) -> None:
    """Its question may have waited for its turn in between."""
    shell = start("/bin/sh", "-mc", "sleep 600; sleep 600", env={"TERM": "xterm"}, screen=screen)
    program = child_of(shell)
    terminal = find_place(program, OWN, environment_of).terminal
    assert terminal is not None
    eventually(lambda: is_in_foreground(program), "a job in the foreground")
    # Until then the shell, which may have used vfork(2), waits for it in the kernel.
    eventually(lambda: Path(f"/proc/{program}/comm").read_text() == "sleep\n", "the job's own program")
    with free_terminal(terminal):
        pass
    os.kill(program, signal.SIGSTOP)
    eventually(lambda: not is_in_foreground(program), "another job in the foreground")
    with pytest.raises(NobodyAskedError, match="not in the foreground"), free_terminal(terminal):
        pass


def is_in_foreground(pid: int) -> bool:
    process = Process.read(pid)
    assert process is not None
    return process.group == process.foreground_group


def test_a_parents_number_that_a_younger_process_has_by_now(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = start(env={"DISPLAY": ":3"})
    parent = Process.read(os.getpid())
    assert parent is not None
    monkeypatch.setattr(Process, "read", lambda number: younger if number == pid else parent)
    younger = replace(parent, pid=gone(), parent=parent.pid)

    def look(number: int) -> dict[str, str]:
        return {"DISPLAY": ":4"} if number == os.getpid() else {}

    assert find_place(pid, OWN, look).certain
    younger = replace(younger, started=parent.started - 1)
    assert not find_place(pid, OWN, look).certain


def gone() -> int:
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


@pytest.mark.parametrize("pid", [None, 0, 1 << 22])
def test_where_no_process_is_the_agent_is_all_there_is(pid: int | None) -> None:
    assert find_place(pid, OWN, environment_of) == Place(
        {"DISPLAY": ":7", "LANG": "C.UTF-8"}, None, certain=False
    )


def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    assert find_place(gone(), OWN, environment_of) == Place(
        {"DISPLAY": ":7", "LANG": "C.UTF-8"}, None, certain=False
    )


def test_a_job_that_nobody_sits_at_is_asked_for_where_the_agent_is(start: Start) -> None:
    assert find_place(start(), OWN, environment_of) == Place(
        {"DISPLAY": ":7", "LANG": "C.UTF-8"}, None, certain=False
    )


def test_behind_an_sshd_nobody_sits(start: Start, screen: Screen, tmp_path: Path) -> None:
    """It asks for the user at the other end; the terminal it was started from is another's."""
    sshd = tmp_path / "sshd"
    sshd.symlink_to("/bin/sleep")
    pid = start(str(sshd), "600", env={"DISPLAY": ":3"}, screen=screen)
    assert find_place(pid, OWN, environment_of) == Place(
        {"DISPLAY": ":7", "LANG": "C.UTF-8"}, None, certain=False
    )


def test_another_user_is_not_looked_at(start: Start) -> None:
    pid = 1
    if os.getuid() == 0:
        pid = start("setpriv", "--reuid=65534", "--clear-groups", "cat", env={"DISPLAY": ":3"})
        status = Path(f"/proc/{pid}/status")
        eventually(lambda: "Uid:\t65534" in status.read_text(), "another user")
    assert find_place(pid, OWN, environment_of) == Place(
        {"DISPLAY": ":7", "LANG": "C.UTF-8"}, None, certain=False
    )


def test_a_tmux_pane_comes_before_a_display() -> None:
    terminal = Terminal("/dev/pts/1", 1, 4711)
    assert Place({"DISPLAY": ":0", "TMUX": "/tmp/tmux,1,0"}, terminal).terminal_first
    assert not Place({"DISPLAY": ":0"}, terminal).terminal_first
    assert not Place({"DISPLAY": ":0", "TMUX": "/tmp/tmux,1,0"}).terminal_first


def test_a_terminal_that_is_known_comes_before_a_display_that_is_guessed() -> None:
    """An agent in a user namespace of its own may read no environment, but sees terminals."""
    assert Place({"DISPLAY": ":0"}, Terminal("/dev/pts/1", 1, 4711), certain=False).terminal_first


def test_of_an_environment_that_is_made_to_cost_much_a_part_is_read(start: Start) -> None:
    """The agent reads it for each question, in threads that keep its loop from running."""
    pid = start(env={"DISPLAY": ":3"} | {f"{number:x}": "" for number in range(100_000)})
    tracemalloc.start()
    read = environment_of(pid)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read["DISPLAY"] == ":3"
    assert most < 4_000_000, most


def test_an_environment_of_usual_size_is_read_whole(start: Start) -> None:
    given = {f"VARIABLE_{number}": "=" * number for number in range(500)} | {"LONG": "x" * 120_000}
    assert environment_of(start(env=given)) == given


IN_NAMESPACE = """
import sys
from replug.token.prompts.environment import environment_of
from replug.token.prompts.place import find_place
place = find_place(int(sys.argv[1]), {"DISPLAY": ":7"}, environment_of)
print(place.environment, place.terminal and place.terminal.path, place.certain)
"""


def test_from_a_user_namespace_of_its_own_the_terminal_is_seen(start: Start, screen: Screen) -> None:
    pid = start(env={"DISPLAY": ":3"}, screen=screen)
    done = subprocess.run(
        ["unshare", "--user", "--map-current-user", sys.executable, "-c", IN_NAMESPACE, str(pid)],
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == (f"{{'DISPLAY': ':7'}} {screen.path} False\n", "")
