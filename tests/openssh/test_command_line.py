"""The command line, side by side with OpenSSH's agent where its release here has the feature."""

from __future__ import annotations

import os
import pwd
import re
import select
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import pytest
from rigs.agent import OPENSSH
from rigs.home import Home
from rigs.terminal import Done

PID = re.compile(r"(?<=Agent pid )\d+(?=;)")
# Debian's ssh-agent is setgid, so glibc hides TMPDIR from it.
DEFAULT_SOCKET = re.compile(
    r"(?:/tmp/rp-\w+)?/"
    # OpenSSH's: "agent" since 10.1, and "local" and the process since 10.6.
    r"(?:\.ssh/agent/s\.\w{10}\.(?:agent|local\.\d+)\.\w{10}|tmp/ssh-\w{12}/agent\.\d+)"
)
NO_IDENTITIES = Done(1, "The agent has no identities.\n", "")


def end_of(pid: int, within: float = 20) -> bool:
    """Waits for the end of a process that need not be a child; whether it came in time."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], within)[0])
    finally:
        os.close(process)


@dataclass(frozen=True)
class Program:
    """An agent's program, in a home of its own."""

    path: Path
    home: Home
    agents: list[int] = field(default_factory=list)

    def __call__(self, *arguments: str | Path, env: dict[str, str] | None = None) -> Done:
        """Runs the program to its end; an agent it leaves behind is ended when the test ends."""
        done = self.home.run(self.path, *arguments, env=env)
        self.agents.extend(int(pid) for pid in PID.findall(done.out))
        return done

    def end_agents(self) -> None:
        """Ends the agents that still run."""
        for pid in self.agents:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            assert end_of(pid)

    def compared(self, done: Done) -> Done:
        """`done` in words that do not depend on the program, the home or the process."""
        out = DEFAULT_SOCKET.sub("SOCKET", done.out)
        err = done.err.replace("\r\n", "\n").replace("replug-agent: ", "").partition("usage:")
        return replace(
            done,
            out=re.sub(
                r"\b(pid |SSH_AGENT_PID[= ])\d+", r"\1PID", out.replace(str(self.home.folder), "HOME")
            ),
            err=err[0] + err[1],
        )


@pytest.fixture
def make_program() -> Iterator[Callable[[Path], Program]]:
    with ExitStack() as cleaning:

        def make(path: Path) -> Program:
            program = Program(path, Home())
            cleaning.callback(program.home.remove)
            cleaning.callback(program.end_agents)
            return program

        yield make


@pytest.fixture
def ours(request: pytest.FixtureRequest, make_program: Callable[[Path], Program]) -> Program:
    """The program under test."""
    return make_program(request.config.getoption("agent"))


@pytest.fixture
def both(ours: Program, make_program: Callable[[Path], Program]) -> tuple[Program, Program]:
    """The program under test and OpenSSH's."""
    return ours, make_program(OPENSSH)


def compare(both: tuple[Program, Program], session: Callable[[Program], Done]) -> Done:
    """Does the same with both programs; returns what both had to say."""
    ours, theirs = (program.compared(session(program)) for program in both)
    assert ours == theirs
    return ours


def pid_in(lines: str) -> int:
    """The process id that an agent's lines for the shell name."""
    return int(PID.findall(lines)[0])


def socket_in(lines: str) -> Path:
    """The path, without blanks, that an agent's lines for the shell name."""
    return Path(re.findall(r"SSH_AUTH_SOCK[= ](\S+);", lines)[0])


class TestUsage:
    @pytest.mark.parametrize(
        "arguments",
        [
            "-c -s",
            "-s -c",
            "-d -D",
            "-dd",
            "-s true",
            "-c true",
            "-k true",
            "-d true",
            "-D true",
            "-x",
            "-h",
            "-t",
            "-a",
            "-t soon",
            "-t -1",
            "-t 1x",
            "-t 99999999999",
        ],
    )
    def test_misuse(self, arguments: str, both: tuple[Program, Program]) -> None:
        done = compare(both, lambda program: program(*arguments.split()))
        assert done.status == 1
        assert done.err.endswith("usage:")

    def test_the_usage(self, ours: Program) -> None:
        done = ours("-x")
        assert (done.status, done.out) == (1, "")
        assert done.err == (
            "replug-agent: unknown option -- x\n"
            "usage: replug-agent [-c | -s] [-DdU] [-T | -A directory | -a bind_address]\n"
            "                    [-E fingerprint_hash] [-O option]\n"
            "                    [-P allowed_providers] [-t life]\n"
            "       replug-agent [-U] [-T | -A directory | -a bind_address]\n"
            "                    [-E fingerprint_hash] [-O option]\n"
            "                    [-P allowed_providers] [-t life] command [arg ...]\n"
            "       replug-agent [-c | -s] -k\n"
            "       replug-agent -u\n"
            "       replug-agent -V\n"
        )

    @pytest.mark.parametrize("arguments", ["-E sha3", "-P a -P b"])
    def test_impossible_values(self, arguments: str, both: tuple[Program, Program]) -> None:
        done = compare(both, lambda program: program(*arguments.split()))
        assert done.status == 255
        assert done.err

    def test_an_unknown_extension(self, both: tuple[Program, Program]) -> None:
        ours, theirs = (program("-O", "fly") for program in both)
        assert (ours.status, ours.out) == (theirs.status, theirs.out) == (255, "")
        assert ours.err == 'replug-agent: Unknown -O option "fly"\n'

    def test_websafe_allow_twice(self, ours: Program) -> None:
        done = ours("-O", "websafe-allow=a", "-O", "websafe-allow=b")
        assert done == Done(255, "", "replug-agent: websafe-allow already set\n")

    def test_the_version(self, ours: Program) -> None:
        assert ours("-V") == Done(0, "", f"replug-agent {version('replug')}\n")


class TestLines:
    @pytest.mark.parametrize("shell", ["/bin/sh", "/bin/csh", "/usr/bin/tcsh", ""])
    @pytest.mark.parametrize("options", ["", "-s", "-c", "-t 1h", "-E SHA256", "-P /opt/*"])
    def test_of_a_daemon(self, options: str, shell: str, both: tuple[Program, Program]) -> None:
        done = compare(both, lambda program: program(*options.split(), env={"SHELL": shell}))
        csh = options == "-c" or (options != "-s" and shell.endswith("csh"))
        assert done == Done(
            0,
            "setenv SSH_AUTH_SOCK SOCKET;\nsetenv SSH_AGENT_PID PID;\necho Agent pid PID;\n"
            if csh
            else "SSH_AUTH_SOCK=SOCKET; export SSH_AUTH_SOCK;\n"
            "SSH_AGENT_PID=PID; export SSH_AGENT_PID;\n"
            "echo Agent pid PID;\n",
            "",
        )

    @pytest.mark.parametrize("shell", ["-s", "-c"])
    def test_of_a_chosen_path(self, shell: str, both: tuple[Program, Program]) -> None:
        done = compare(both, lambda program: program(shell, "-a", program.home.folder / "agent"))
        assert done.status == 0
        assert "HOME/agent;" in done.out

    @pytest.mark.parametrize("name", ["two words", "a\ttab", "it's", 'a"b', "back\\slash"])
    def test_that_a_shell_evaluates(self, name: str, ours: Program) -> None:
        path = str(ours.home.folder / name)
        script = 'eval "$("$1" -s -a "$2")"; printf "%s" "$SSH_AUTH_SOCK"'
        done = ours.home.run("sh", "-c", script, "-", ours.path, path)
        assert done == Done(0, f"Agent pid {done.out.split()[2]}\n{path}", "")
        ours.agents.append(int(done.out.split()[2]))

    def test_a_path_in_no_encoding(self, ours: Program) -> None:
        name = os.fsdecode(b"\xff\xfe")
        with subprocess.Popen(
            [ours.path, "-D", "-a", name], env=ours.home.env, cwd=ours.home.folder, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout
            line = process.stdout.readline()
            process.terminate()
        assert line == b"SSH_AUTH_SOCK=\xff\xfe; export SSH_AUTH_SOCK;\n"

    @pytest.mark.parametrize("option", ["-D", "-Dc", "-d"])
    def test_in_the_foreground(self, option: str, both: tuple[Program, Program]) -> None:
        def session(program: Program) -> Done:
            with subprocess.Popen(
                [program.path, option],
                env=program.home.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            ) as process:
                assert process.stdout
                lines = process.stdout.readline() + process.stdout.readline()
                assert pid_in(lines) == process.pid
                wait_until_served(program.home, socket_in(lines))
                process.terminate()
                return Done(process.wait(20), lines + process.stdout.read(), "")

        done = compare(both, session)
        line = (
            "setenv SSH_AUTH_SOCK SOCKET;" if "c" in option else "SSH_AUTH_SOCK=SOCKET; export SSH_AUTH_SOCK;"
        )
        assert done == Done(2, f"{line}\necho Agent pid PID;\n", "")


class TestSocket:
    def test_in_the_home(self, ours: Program) -> None:
        path = socket_in(ours("-s").out)
        assert path.parent == ours.home.folder / ".ssh" / "agent"
        assert re.fullmatch(r"s\.[a-zA-Z0-9]{10}\.agent\.[a-zA-Z0-9]{10}", path.name)
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert ours.home.run("ssh-add", "-l", env={"SSH_AUTH_SOCK": str(path)}) == NO_IDENTITIES

    def test_in_the_temporary_folder(self, ours: Program) -> None:
        path = socket_in(ours("-T").out)
        assert path.parent.parent == ours.home.folder / "tmp"
        assert re.fullmatch(r"ssh-[a-zA-Z0-9]{12}/agent\.\d+", f"{path.parent.name}/{path.name}")
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert not (ours.home.folder / ".ssh").exists()
        assert ours.home.run("ssh-add", "-l", env={"SSH_AUTH_SOCK": str(path)}) == NO_IDENTITIES

    @pytest.mark.parametrize(
        ("folder", "expected"),
        [
            ("user:sub/deep", "sub/deep"),
            ("user:%h/%u-%U-%%", "{user}-{uid}-%"),
            ("user:~/sub", "sub"),
            ("user:", "."),
            ("shared:{home}/tmp", None),
            ("shared:%h/tmp", None),
        ],
    )
    def test_in_a_folder_of_choice(self, folder: str, expected: str | None, ours: Program) -> None:
        """As OpenSSH's agent has it from 10.6 on."""
        home = ours.home.folder
        started = ours("-A", folder.format(home=home))
        path = socket_in(started.out)
        if expected is None:
            assert path.parent.parent == home / "tmp"
            assert re.fullmatch(r"ssh-[a-zA-Z0-9]{12}", path.parent.name)
        else:
            uid = os.getuid()
            name = pwd.getpwuid(uid).pw_name
            assert path.parent == (home / expected.format(user=name, uid=uid))
            assert re.fullmatch(r"s\.[a-zA-Z0-9]{10}\.agent\.[a-zA-Z0-9]{10}", path.name)
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        wait_until_served(ours.home, path)
        os.kill(pid_in(started.out), signal.SIGTERM)
        assert end_of(pid_in(started.out))
        assert not path.exists()
        assert path.parent.exists() == (expected is not None)

    @pytest.mark.parametrize(
        ("folder", "words"),
        [
            ("", "-A '' does not begin with user: or shared:"),
            ("/tmp", "-A '/tmp' does not begin with user: or shared:"),
            ("shared:sub", "cannot listen in 'sub': the path of a shared folder must be absolute"),
            ("user:%k", "-A: '%k' is none of the tokens %%, %h, %U and %u"),
            ("user:%", "-A: '%' is none of the tokens"),
            ("user:/dev/null", "'/dev/null': Not a directory"),
            ("shared:/nonexistent", "No such file or directory"),
            ("user:" + "x" * 100, "AF_UNIX path too long"),
        ],
    )
    def test_an_impossible_folder(self, folder: str, words: str, ours: Program) -> None:
        done = ours("-A", folder)
        assert (done.status, done.out) == (255, "")
        assert words in done.err

    @pytest.mark.parametrize("home", ["missing", "long"])
    @pytest.mark.parametrize("runtime", ["", "run", "gone"])
    def test_without_room_in_the_home(self, home: str, runtime: str, ours: Program) -> None:
        """A socket's address has 108 bytes."""
        folder = ours.home.folder
        long = folder / ("deep" * 20)
        long.mkdir()
        (folder / "run").mkdir(exist_ok=True)
        env = {
            "HOME": str(long if home == "long" else folder / "missing"),
            "XDG_RUNTIME_DIR": str(folder / runtime) if runtime else "",
        }
        path = socket_in(ours("-s", env=env).out)
        assert path.parent.parent == folder / ("run" if runtime == "run" else "tmp")
        assert ours.home.run("ssh-add", "-l", env={"SSH_AUTH_SOCK": str(path)}) == NO_IDENTITIES
        assert not (long / ".ssh").exists()

    def test_a_relative_path_is_removed_from_where_it_was(self, ours: Program) -> None:
        pid = pid_in(ours("-s", "-a", "here").out)
        wait_until_served(ours.home, ours.home.folder / "here")
        os.kill(pid, signal.SIGTERM)
        assert end_of(pid)
        assert [path.name for path in ours.home.folder.rglob("*") if path.is_socket()] == []

    def test_an_existing_file_is_kept(self, both: tuple[Program, Program]) -> None:
        def session(program: Program) -> Done:
            path = program.home.write("taken", "mine")
            done = program("-a", path)
            assert path.read_text() == "mine"
            return replace(done, err="")

        assert compare(both, session) == Done(1, "", "")

    @pytest.mark.parametrize("path", ["/nonexistent/agent", "/" + "a" * 200])
    def test_an_impossible_path(self, path: str, both: tuple[Program, Program]) -> None:
        assert compare(both, lambda program: replace(program("-a", path), err="")) == Done(1, "", "")
        assert path in both[0]("-a", path).err

    def test_an_unusable_home(self, ours: Program) -> None:
        done = ours("-s", env={"HOME": "/dev/null"})
        words = "replug-agent: cannot clean up '/dev/null/.ssh/agent': Not a directory\n"
        assert done == Done(255, "", words)

    @pytest.mark.parametrize(
        ("options", "remaining"),
        [("-u", ["other"]), ("-uu", []), ("-s", ["other"]), ("-sU", ["old", "other"])],
    )
    @pytest.mark.parametrize("folder", [(), ("-A", "user:sub")])
    def test_stale_sockets(
        self, folder: tuple[str, ...], options: str, remaining: list[str], ours: Program
    ) -> None:
        started = ours("-s", *folder)
        live = socket_in(started.out)
        os.utime(live, times=(0, 0))
        host, _, _ = live.name.rpartition(".")
        paths = {"old": live.with_name(f"{host}.old"), "other": live.with_name("s.elsewhere.agent.old")}
        for path in paths.values():
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(path))
            os.utime(path, times=(time.time() - 3700,) * 2)

        done = ours(options, *folder)

        assert done.status == 0
        if "u" in options:
            where = live.parent if folder else "~/.ssh/agent"
            assert done == Done(0, f"Deleted stale agent sockets in {where}\n", "")
        assert [name for name, path in paths.items() if path.exists()] == remaining
        assert live.exists()
        assert end_of(pid_in(started.out), within=0) is False


class TestKill:
    @pytest.mark.parametrize("shell", ["-s", "-c"])
    def test_an_agent(self, shell: str, both: tuple[Program, Program]) -> None:
        def session(program: Program) -> Done:
            path = program.home.folder / "agent"
            pid = pid_in(program("-s", "-a", path).out)
            wait_until_served(program.home, path)
            done = program(shell, "-k", env={"SSH_AGENT_PID": str(pid)})
            assert end_of(pid)
            assert not path.exists()
            return done

        unset = "unset" if shell == "-s" else "unsetenv"
        lines = f"{unset} SSH_AUTH_SOCK;\n{unset} SSH_AGENT_PID;\necho Agent pid PID killed;\n"
        assert compare(both, session) == Done(0, lines, "")

    @pytest.mark.parametrize(
        "pid", ["", "0", "1", "-5", "2147483648", "99999999999999999999", "12x", "x", "12 ", "0x12", "+"]
    )
    def test_what_is_no_pid(self, pid: str, both: tuple[Program, Program]) -> None:
        done = compare(both, lambda program: program("-k", env={"SSH_AGENT_PID": pid}))
        assert (done.status, done.out) == (1, "")
        assert f'"{pid}", which is not a good PID: ' in done.err

    @pytest.mark.parametrize("pid", [" {}", "+{}", "\t00{}"])
    def test_a_pid_in_other_words(self, pid: str, both: tuple[Program, Program]) -> None:
        """As strtonum(3) takes it."""
        gone = subprocess.Popen(["true"])
        gone.wait()
        env = {"SSH_AGENT_PID": pid.format(gone.pid)}
        assert compare(both, lambda program: program("-k", env=env)) == Done(1, "", "kill: No such process\n")

    def test_without_a_pid(self, both: tuple[Program, Program]) -> None:
        done = compare(both, lambda program: program("-k"))
        assert done == Done(1, "", "SSH_AGENT_PID not set, cannot kill agent\n")

    def test_an_agent_that_is_gone(self, both: tuple[Program, Program]) -> None:
        gone = subprocess.Popen(["true"])
        gone.wait()
        done = compare(both, lambda program: program("-k", env={"SSH_AGENT_PID": str(gone.pid)}))
        assert done == Done(1, "", "kill: No such process\n")


class TestCommand:
    def test_it_has_an_agent(self, both: tuple[Program, Program]) -> None:
        assert compare(both, lambda program: program("ssh-add", "-l")) == NO_IDENTITIES

    @pytest.mark.parametrize("option", [[], ["-t", "5"], ["--"]])
    def test_its_exit_status_and_arguments(self, option: list[str], both: tuple[Program, Program]) -> None:
        script = 'printf "%s|" "$@"; exit 7'
        done = compare(both, lambda program: program(*option, "sh", "-c", script, "-s", "a b", "", "*"))
        assert done == Done(7, "a b||*|", "")

    def test_a_signal_ends_it_as_ever(self, both: tuple[Program, Program]) -> None:
        assert compare(both, lambda program: program("sh", "-c", "kill -9 $$")) == Done(-9, "", "")

    def test_its_environment(self, both: tuple[Program, Program]) -> None:
        script = "unset TMPDIR; env | sed 's/^SSH_.*=.*/SSH_/' | sort"
        done = compare(both, lambda program: program("sh", "-c", script, env={"LANG": "C"}))
        assert done.status == 0
        assert "LC_CTYPE" not in done.out

    def test_its_signals(self, both: tuple[Program, Program]) -> None:
        # Not by way of a shell, which would reset what it is given.
        done = compare(both, lambda program: program("grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"))
        blocked, ignored = (int(line.split()[1], 16) for line in done.out.splitlines())
        # GNU make leaves 32 and 33, glibc's own, ignored, and Python cannot mend that.
        assert (done.status, blocked, ignored & 0x7FFF_FFFF) == (0, 0, 0)

    @pytest.mark.parametrize("command", ["/nonexistent/program", "no-such-program", "/", "-"])
    def test_what_cannot_be_executed(self, command: str, both: tuple[Program, Program]) -> None:
        done = compare(both, lambda program: program(command))
        assert (done.status, done.out) == (1, "")
        assert done.err.startswith(f"{command}: ")

    def test_a_script_without_an_interpreter_line(self, both: tuple[Program, Program]) -> None:
        def session(program: Program) -> Done:
            return program(program.home.write("script", 'echo "hello $1"; exit 3\n', mode=0o700), "a  b")

        assert compare(both, session) == Done(3, "hello a  b\n", "")

    @pytest.mark.parametrize(
        ("command", "status"),
        [("echo $SSH_AGENT_PID $SSH_AUTH_SOCK", 0), ("echo $SSH_AGENT_PID $SSH_AUTH_SOCK; kill -9 $$", -9)],
    )
    def test_the_agent_ends_with_it(self, command: str, status: int, ours: Program) -> None:
        done = ours("sh", "-c", command)
        assert done.status == status
        pid, path = done.out.split()
        assert end_of(int(pid), within=5)
        assert not Path(path).exists()


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
    def test_that_end_an_agent_in_the_foreground(
        self, number: signal.Signals, both: tuple[Program, Program]
    ) -> None:
        def session(program: Program) -> Done:
            path = program.home.folder / "agent"
            with subprocess.Popen(
                [program.path, "-D", "-a", path],
                env=program.home.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            ) as process:
                assert process.stdout
                process.stdout.readline()  # which comes when the socket is there
                wait_until_served(program.home, path)
                process.send_signal(number)
                status = process.wait(20)
            assert not path.exists()
            return Done(status, "", "")

        assert compare(both, session) == Done(2, "", "")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGPIPE])
    def test_that_do_not_end_a_daemon(self, number: signal.Signals, both: tuple[Program, Program]) -> None:
        def session(program: Program) -> Done:
            path = program.home.folder / "agent"
            pid = pid_in(program("-s", "-a", path).out)
            wait_until_served(program.home, path)
            os.kill(pid, number)
            return program.home.run("ssh-add", "-l", env={"SSH_AUTH_SOCK": str(path)})

        assert compare(both, session) == NO_IDENTITIES

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGPIPE, signal.SIGUSR1])
    def test_that_do_not_end_a_daemon_that_is_starting(self, number: signal.Signals, ours: Program) -> None:
        path = ours.home.folder / "agent"
        os.kill(pid_in(ours("-s", "-a", path).out), number)
        wait_until_served(ours.home, path)

    def test_sigusr1_leaves_the_agent_running(self, ours: Program) -> None:
        path = ours.home.folder / "agent"
        pid = pid_in(ours("-s", "-a", path).out)
        wait_until_served(ours.home, path)
        os.kill(pid, signal.SIGUSR1)
        wait_until_served(ours.home, path)

    def test_one_at_once_removes_the_socket_all_the_same(self, ours: Program) -> None:
        path = ours.home.folder / "agent"
        pid = pid_in(ours("-s", "-a", path).out)
        os.kill(pid, signal.SIGTERM)
        assert end_of(pid)
        assert not path.exists()


def wait_until_served(home: Home, path: Path) -> None:
    """Returns when the agent at `path` has answered a client."""
    assert home.run("ssh-add", "-l", env={"SSH_AUTH_SOCK": str(path)}) == NO_IDENTITIES


def test_the_agent_lets_go_of_its_starter(ours: Program) -> None:
    with subprocess.Popen(
        [ours.path, "-s"],
        env=ours.home.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        out, _ = process.communicate(timeout=20)  # to the end of both streams
    pid = pid_in(out)
    ours.agents.append(pid)
    assert os.getsid(pid) == pid != process.pid
    assert end_of(pid, within=0) is False
