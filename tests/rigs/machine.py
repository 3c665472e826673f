"""A home on a machine of its own, as its programs see it: for daemons, and for modules at fixed places."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from rigs.agent import descendants
from rigs.home import Home
from rigs.terminal import Done, eventually

P11_KIT_MODULES = Path("/usr/share/p11-kit/modules")
_P11_KIT_SYSTEM = Path("/etc/pkcs11/modules")
_LISTEN = "0A"
_INSIDE = Path(__file__).with_name("machine_inside.py")


class Machine(Home):
    """A home whose programs run in mount, network and IPC namespaces of its own.

    p11-kit knows only the modules that `register` names. What `start` starts is gone when the machine is.
    """

    def __init__(self, mounts: Mapping[Path, Path | None] = {}) -> None:
        """What is at the places `mounts`: a folder or a file, or nothing in a new folder."""
        super().__init__()
        self._registered = self.folder / "p11-kit"
        self._registered.mkdir(mode=0o755)
        places: dict[Path, Path | None] = {P11_KIT_MODULES: self._registered, **mounts}
        if _P11_KIT_SYSTEM.exists():
            places[_P11_KIT_SYSTEM] = None
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child", "--",
             sys.executable, "-I", _INSIDE, *(f"{source or ''}:{place}" for place, source in places.items())],
            env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout
        assert self._process.stdout.readline() == b"ready\n", "namespaces like these need root"
        self._first = descendants(self._process.pid)[0]
        self._enter = ["nsenter", "--target", str(self._first), "--mount", "--net", "--ipc"]

    def inside(self, *argv: str | Path) -> list[str]:
        """The command line that runs `argv` on this machine."""
        return [*self._enter, "--", *map(str, argv)]

    def program(self, path: Path) -> Path:
        """A program that runs the one at `path` on this machine."""
        words = " ".join(self.inside(path))
        return self.write(f"inside-{path.name}", f'#!/bin/sh\nexec {words} "$@"\n', 0o700)

    def run(
        self,
        *argv: str | Path,
        env: dict[str, str] | None = None,
        text: str | bytes = "",
        typing: Sequence[tuple[str, str]] = (),
        timeout: float = 60,
    ) -> Done:
        return super().run(*self.inside(*argv), env=env, text=text, typing=typing, timeout=timeout)

    def do(self, *argv: str | Path, env: dict[str, str] | None = None, text: str = "") -> str:
        """Runs `argv`, which must succeed; what it prints."""
        done = self.run(*argv, env=env, text=text)
        assert done.status == 0, done
        return done.out

    def start(self, *argv: str | Path, env: dict[str, str] | None = None) -> Daemon:
        """Starts a daemon that stays in the foreground; its output is in `NAME.log`."""
        name = Path(argv[0]).name
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*self._enter, "--pid", "--", *argv], env=self.env | (env or {}), cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        return Daemon(process, self.folder / f"{name}.log")

    def listens(self, port: int) -> bool:
        """Whether something there listens on this TCP port."""
        sockets = Path(f"/proc/{self._first}/net/tcp").read_text().splitlines()[1:]
        listening = [fields[1] for fields in map(str.split, sockets) if fields[3] == _LISTEN]
        return f"0100007F:{port:04X}" in listening or f"00000000:{port:04X}" in listening

    def register(self, name: str, *lines: str) -> None:
        """Makes a module known to p11-kit, by the lines of its .module file."""
        module = self._registered / f"{name}.module"
        module.write_text("".join(f"{line}\n" for line in lines))
        module.chmod(0o644)

    def remove(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._process.stdout.close()
        super().remove()


class Daemon:
    """What `Machine.start` has started."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def log(self) -> str:
        """What it has written."""
        return self._log.read_text(errors="replace")

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Ends it and all that it has started by a signal."""
        eventually(lambda: descendants(self._process.pid) or not self.running, "it has been started")
        for pid in descendants(self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, how)
        self._process.wait(timeout=20)
