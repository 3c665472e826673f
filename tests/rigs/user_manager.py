"""A user's own systemd, as it runs from login on: `systemd --user` in namespaces that belong to one test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rigs.agent import descendants
from rigs.home import Home
from rigs.root import AS_ROOT
from rigs.terminal import Done, eventually, run

USER, UID = "tester", os.getuid() or 59999
REPOSITORY = Path(__file__).parents[2]
# Under /home, as usual, unless that would hide what is tested.
HOME = Path("/mnt" if REPOSITORY.is_relative_to("/home") else "/home", USER)
_SCRIPT = Path(__file__).with_suffix(".sh")
_OUTSIDE = {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}


class NotStartedError(Exception):
    """There can be no service manager of our own here; the text says why."""


class UserManager:
    """An ordinary user who logs in and out, whose home is a test's `Home`, at another path.

    What is in `home.env` of the tests' own tools (SoftHSM, pcscd) is in the environment at login.
    """

    def __init__(self, home: Home, *, within: Sequence[str] = (), journal: bool = False) -> None:
        """`within` is a command that runs another, in the namespaces that these are to be in.

        With `journal`, a journald of the test's own takes the messages.
        """
        if journal:
            (home.folder / "tmp" / "journal").touch()
        self._within = within
        self._folder = home.folder
        self.folder = HOME
        self._log = home.folder / "tmp" / "manager.log"
        self._process: subprocess.Popen[str] | None = None
        self._started: list[subprocess.Popen[bytes]] = []
        tools = {
            name: home.env[name] for name in ("SOFTHSM2_CONF", "PCSCLITE_CSOCK_NAME") if name in home.env
        }
        login = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"} | tools
        home.write("environment", "".join(f"{name}={value}\n" for name, value in login.items()), 0o644)
        self.runtime = Path("/run/user", str(UID))
        self.env = login | {
            "HOME": str(self.folder),
            "USER": USER,
            "SHELL": "/bin/sh",
            "XDG_RUNTIME_DIR": str(self.runtime),
        }

    def log_in(self) -> None:
        """Starts the manager, and waits until all it starts at login has started; NotStartedError."""
        assert self._process is None, "logged in already"
        if os.getuid() == 0:
            for path in [self._folder, *self._folder.rglob("*")]:
                os.chown(path, UID, UID, follow_symlinks=False)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*AS_ROOT, *self._within, "sh", _SCRIPT, USER, str(UID), self._folder, self.folder,
                 REPOSITORY, sys.base_prefix],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        assert self._process.stdout
        if self._process.stdout.readline() != "started\n":
            self.log_out()
            raise NotStartedError(f"no systemd --user in namespaces of its own here: {self.log}")
        eventually(lambda: self.systemctl("is-system-running", "--wait").out == "running\n", "login", 60)

    def log_out(self) -> None:
        """Ends the manager and all it has started, as a logout does."""
        if self._process is not None:
            self._process.communicate(timeout=60)
            self._process = None
        while self._started:
            self._started.pop().communicate(timeout=60)

    @property
    def log(self) -> str:
        """What the manager and its namespaces' maker have written."""
        return self._log.read_text()

    def run(
        self,
        *argv: str | Path,
        env: dict[str, str] | None = None,
        text: str | bytes = "",
        typing: Sequence[tuple[str, str]] = (),
        as_root: bool = False,
    ) -> Done:
        """Runs `argv` as this user in the namespaces; see `terminal.run`. With `as_root`, as root there."""
        return run(
            *self._command(argv, env or {}, as_root), env=_OUTSIDE, text=text, typing=typing, timeout=120
        )

    def start(
        self,
        *argv: str | Path,
        env: dict[str, str] | None = None,
        given: bytes = b"",
        as_root: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Starts `argv` as `run` does, gives it something on standard input, and leaves it running.

        It ends with the session at the latest.
        """
        process = subprocess.Popen(
            [str(word) for word in self._command(argv, env or {}, as_root)],
            env=_OUTSIDE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._started.append(process)
        assert process.stdin
        process.stdin.write(given)
        process.stdin.flush()
        return process

    def processes(self) -> list[int]:
        """The process ids, as they are outside, of all that runs in the session."""
        assert self._process is not None, "not logged in"
        started = [process.pid for process in self._started]
        return [pid for one in (self._process.pid, *started) for pid in descendants(one)]

    def _command(self, argv: Sequence[str | Path], env: dict[str, str], as_root: bool) -> list[str | Path]:
        assert self._process is not None, "not logged in"
        # pid 1 of the namespaces: the first that is in the new ones is the child of `unshare --fork`.
        inside = next(pid for pid in descendants(self._process.pid) if _is_first(pid))
        become = () if as_root else ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
        settings = [f"{name}={value}" for name, value in (self.env | env).items()]
        return [
            *AS_ROOT, "nsenter", f"--target={inside}", "--mount", "--pid", "--cgroup", "--no-fork", "--",
            # What it starts is inside; nsenter's own way of waiting, if let fork, upsets sudo's terminal.
            "sh", "-c", '"$@"; exit $?', "-", *become,
            "env", "-i", f"--chdir={self.folder}", *settings, *argv,
        ]  # fmt: skip

    def systemctl(self, *arguments: str) -> Done:
        """`systemctl --user`."""
        return self.run("systemctl", "--user", *arguments)

    def replug(
        self, *arguments: str, env: dict[str, str] | None = None, typing: Sequence[tuple[str, str]] = ()
    ) -> Done:
        """`replug`, as installed with this Python."""
        return self.run(Path(sys.executable).with_name("replug"), *arguments, env=env, typing=typing)

    def ssh_add(self, *arguments: str | Path, typing: Sequence[tuple[str, str]] = ()) -> Done:
        """`ssh-add` in a program that the session starts anew: with SSH_AUTH_SOCK from the manager."""
        agent = {"SSH_AUTH_SOCK": self.environment()["SSH_AUTH_SOCK"]}
        return self.run("ssh-add", *arguments, env=agent, typing=typing)

    def listing(self) -> list[str]:
        """Everything in the home and the runtime folder but systemd's, with modes and what links lead to."""
        self.environment()  # lest its transient service be the first that needs D-Bus
        return self.run(
            "find", ".", self.runtime, "(", "-path", "./tmp", "-o", "-path", self.runtime / "systemd", ")",
            "-prune", "-o", "-printf", r"%M %p %l\n", as_root=True,
        ).lines  # fmt: skip

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.systemctl("show", "--value", "-p", name, unit).out.rstrip("\n")

    def environment(self) -> dict[str, str]:
        """What a program gets that the session starts anew: the environment of a transient service."""
        done = self.run("systemd-run", "--user", "--quiet", "--wait", "--pipe", "env")
        assert done.status == 0, done
        return dict(line.split("=", 1) for line in done.out.splitlines())


def _is_first(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return "\nNSpid:" in status and status.partition("\nNSpid:")[2].split("\n")[0].split()[1:] == ["1"]
