"""A Debian of its own that is booted: its systemd, its logind, its users who log in. It needs root."""

from __future__ import annotations

import os
import pty
import select
import shlex
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from rigs.agent import descendants
from rigs.terminal import Done, eventually, run

_SCRIPT = Path(__file__).with_suffix(".sh")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {"PATH": _PATH, "LANG": "C.UTF-8", "TERM": "xterm"}
_PATIENCE = 600.0  # seconds; packages are installed, on a busy machine


class Booted:
    """The system in the folder `root`, from its start to `shut_down`; it has this machine's network."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self._key = root / "root/key_of_the_tests"
        self._process = subprocess.Popen(
            ["sh", _SCRIPT, root], stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            eventually(self._has_started, "the machine has started", within=120)
        except BaseException:
            self.shut_down()
            raise

    @property
    def _first(self) -> int:
        """Its process 1."""
        return next(pid for pid in descendants(self._process.pid) if _name(pid) == "systemd")

    def _has_started(self) -> bool:
        assert self._process.poll() is None, "the machine did not start: " + self.log
        try:
            state = self.run("systemctl", "is-system-running").out.strip()
        except StopIteration:
            return False
        # Some units have nothing to do in a container, and fail.
        return state in {"running", "degraded"}

    @property
    def log(self) -> str:
        """What its systemd wrote when it started."""
        log = self.root / "boot.log"
        return log.read_text() if log.exists() else ""

    def run(self, *argv: str | Path) -> Done:
        """Runs a program there, as root."""
        enter = ["nsenter", "--target", str(self._first), "--all", "--wdns=/", "--"]
        return run(*enter, *argv, env=_ENVIRONMENT, timeout=_PATIENCE)

    def log_in(self, user: str, script: str, typing: Sequence[tuple[str, str]] | None = None) -> Done:
        """What `user` gets who logs in by ssh and runs `script` in a login shell.

        With `typing`, pairs of a prompt and the answer to it, also none, it is on a terminal, whose text is
        `out`.
        """
        command = [
            "ssh", "-F", "none", "-i", self._key, "-o", "IdentitiesOnly=yes", "-o", "LogLevel=error",
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-p", str(self.port),
            *([] if typing is None else ["-tt"]),
            f"{user}@127.0.0.1", f"exec bash --login -c {shlex.quote(script)}",
        ]  # fmt: skip
        if typing is None:
            return run(*command, env=_ENVIRONMENT, timeout=_PATIENCE)
        return _converse(command, typing)

    def admit(self, user: str) -> None:
        """Have sshd let the tests log in as `user`."""
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._key], check=True, capture_output=True
        )
        keys = self.root / "etc/ssh/keys_of_the_tests"
        keys.write_bytes(self._key.with_suffix(".pub").read_bytes())
        (self.root / "etc/ssh/sshd_config.d/tests.conf").write_text(
            f"Port {self.port}\nAuthorizedKeysFile .ssh/authorized_keys /etc/ssh/keys_of_the_tests\n"
        )
        self.run("systemctl", "disable", "--now", "ssh.socket")  # Ubuntu's
        done = self.run("systemctl", "restart", "ssh.service")
        assert done.status == 0, (done, self.run("journalctl", "--unit=ssh", "--no-pager").out)

    def shut_down(self) -> None:
        """Ends it and everything that runs there."""
        if self._process.poll() is None:
            for pid in descendants(self._process.pid):
                if _name(pid) == "unshare":
                    subprocess.run(["kill", "-KILL", str(pid)], check=False)
            self._process.wait(timeout=60)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _converse(command: list[str | Path], typing: Sequence[tuple[str, str]]) -> Done:
    """Runs a command that has nothing but a terminal."""
    pid, screen = pty.fork()
    if pid == 0:
        os.execvpe(command[0], [str(word) for word in command], _ENVIRONMENT)
    seen, answered, waiting = b"", 0, list(typing)
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if not select.select([screen], [], [], 1)[0]:
            continue
        try:
            piece = os.read(screen, 4096)
        except OSError:  # nobody has the terminal any more
            break
        seen += piece
        if waiting and waiting[0][0].encode() in seen[answered:]:
            answered = len(seen)
            os.write(screen, waiting.pop(0)[1].encode() + b"\n")
    else:
        os.kill(pid, 9)
    _, status = os.waitpid(pid, 0)
    os.close(screen)
    text = seen.decode(errors="replace").replace("\r\n", "\n")
    assert not waiting, f"no prompt {waiting[0][0]!r}, but {text!r}"
    return Done(os.waitstatus_to_exitcode(status), text, "")
