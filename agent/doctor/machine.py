"""Where the checks of `replug doctor` look: the machine, or what a test puts in its place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from replug.agent.doctor.socket import SocketReport, examine

_PATIENCE = 10.0  # seconds, for a program that tells us something


@dataclass(frozen=True)
class Reader:
    """A reader that pcscd knows."""

    name: str
    card: bool
    exclusive: bool
    """Whether a program has the card for itself."""
    mute: bool
    """Whether the card does not answer."""
    connect: int
    """What SCardConnect returned; 0 where there is no card."""


@dataclass(frozen=True)
class PcscReport:
    """What pcscd said to a program of ours."""

    library: bool = True
    code: int = 0
    """What SCardEstablishContext returned."""
    readers: tuple[Reader, ...] = ()
    hung: bool = False
    """Whether there was no answer in time."""

    @property
    def answers(self) -> bool:
        """Whether what it says of readers is so."""
        return self.library and not self.code and not self.hung


@dataclass(frozen=True)
class Machine:
    """One machine and one person on it. What is expensive to know is found out once, when first needed."""

    environment: Mapping[str, str]
    home: Path
    modules: tuple[str, ...] = ()
    """Modules or PKCS#11 URIs the person asks about."""
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    run: Path = Path("/run")
    etc: Path = Path("/etc")
    drivers: Path = Path("/usr/lib/pcsc/drivers")
    user: int = field(default_factory=os.geteuid)

    @cached_property
    def pcsc(self) -> PcscReport:
        """What pcscd says."""
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-m", "replug.agent.doctor.pcsc_probe"],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PATIENCE,
            )
            answer = json.loads(done.stdout)
        except (subprocess.TimeoutExpired, ValueError):  # ValueError: the library took the process with it
            return PcscReport(hung=True)
        if not answer["library"]:
            return PcscReport(library=False)
        return PcscReport(True, answer["code"], tuple(Reader(**reader) for reader in answer["readers"]))

    @cached_property
    def agent(self) -> SocketReport:
        """Who answers at $SSH_AUTH_SOCK."""
        return examine(self.environment.get("SSH_AUTH_SOCK", ""), self.proc)

    @property
    def status(self) -> dict[str, Any] | None:
        """The running agent's status; None where no replug-agent answers."""
        return self.agent.status

    def find_program(self, name: str) -> str | None:
        """Where a program is, looked for as the person's shell and the system's services would."""
        path = self.environment.get("PATH", os.defpath)
        return shutil.which(name, path=f"{path}:/usr/sbin:/sbin")

    def ask_program(self, *command: str) -> str | None:
        """What a program prints, whatever its exit status; None if it cannot run or takes too long."""
        try:
            return subprocess.run(
                command,
                env=dict(self.environment) | {"LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_PATIENCE,
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            return None

    def processes(self) -> Iterator[tuple[int, str]]:
        """Process ids and names of what runs and may be looked at."""
        for entry in self.proc.iterdir():
            if entry.name.isdecimal():
                try:
                    yield int(entry.name), (entry / "comm").read_text(errors="replace").strip()
                except OSError:
                    continue

    def parent(self, pid: int) -> int:
        """The process that started this one; 0 where that is not known."""
        try:
            status = (self.proc / str(pid) / "status").read_text(errors="replace")
        except OSError:
            return 0
        return next((int(line[5:]) for line in status.splitlines() if line.startswith("PPid:")), 0)

    def uses_file(self, pid: int, beginning: str) -> bool:
        """Whether the process has a file open whose path begins so; False where we may not know."""
        try:
            return any(
                os.readlink(descriptor).startswith(beginning)
                for descriptor in (self.proc / str(pid) / "fd").iterdir()
            )
        except OSError:
            return False

    def maps_file(self, pid: int, name: str) -> bool:
        """Whether the process has loaded a library with `name` in its path; False where we may not know."""
        try:
            return name in (self.proc / str(pid) / "maps").read_text(errors="replace")
        except OSError:
            return False
