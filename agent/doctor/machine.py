"""What the checks of `replug doctor` examine: this machine, or a stand-in for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replug.agent.doctor.socket import SocketReport, examine
from replug.token.p11kit import Registry, read_registry
from replug.token.p11kit_files import P11KitFiles

if TYPE_CHECKING:
    from replug.agent.config.model import Config

_PATIENCE = 10.0  # seconds for a program's output


@dataclass(frozen=True)
class Reader:
    """A reader that pcscd knows."""

    name: str
    card: bool
    exclusive: bool
    """Whether a program has exclusive access to the card."""
    mute: bool
    """Whether the card does not answer."""
    connect: int
    """What SCardConnect returned; 0 without a card."""


@dataclass(frozen=True)
class PcscReport:
    """What pcscd answered to a program of ours."""

    library: bool = True
    code: int = 0
    """What SCardEstablishContext returned."""
    readers: tuple[Reader, ...] = ()
    hung: bool = False
    """Whether the answer did not come in time."""

    @property
    def answers(self) -> bool:
        """Whether `readers` can be relied on."""
        return self.library and not self.code and not self.hung


@dataclass(frozen=True)
class Machine:
    """One machine and one user on it. What is expensive to find out is found out once, when first needed."""

    environment: Mapping[str, str]
    home: Path
    modules: tuple[str, ...]
    """Modules or PKCS#11 URIs that the user asks about."""
    root: Path
    """The folder that has etc, proc, run, sys and usr."""

    @property
    def _proc(self) -> Path:
        return self.root / "proc"

    @cached_property
    def config(self) -> Config:
        """The configuration of an agent started now; the defaults if its file has errors."""
        # Here and not at the top: no other command needs platformdirs and tomllib.
        from replug.agent.config.file import config_path, load_config
        from replug.agent.config.model import Config, ConfigError

        try:
            return load_config(config_path())
        except ConfigError:
            return Config()

    @cached_property
    def registry(self) -> Registry:
        """The modules that p11-kit has registered."""
        return read_registry(P11KitFiles.of(self.environment, os.getuid(), self.root))

    @cached_property
    def pcsc(self) -> PcscReport:
        """pcscd's answer."""
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-m", "replug.agent.doctor.pcsc_probe"],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PATIENCE,
            )
            answer = json.loads(done.stdout)
        except (subprocess.TimeoutExpired, ValueError):  # ValueError: the library crashed the process
            return PcscReport(hung=True)
        if not answer["library"]:
            return PcscReport(library=False)
        return PcscReport(True, answer["code"], tuple(Reader(**reader) for reader in answer["readers"]))

    @cached_property
    def agent(self) -> SocketReport:
        """The agent that answers at $SSH_AUTH_SOCK."""
        return examine(self.environment.get("SSH_AUTH_SOCK", ""), self._proc)

    @property
    def status(self) -> dict[str, Any] | None:
        """The running agent's status; None if no replug-agent answers."""
        return self.agent.status

    def find_program(self, name: str) -> str | None:
        """The path of a program, in the folders of the user's shell and of system services."""
        path = self.environment.get("PATH", os.defpath)
        return shutil.which(name, path=f"{path}:/usr/sbin:/sbin")

    def ask_program(self, *command: str) -> str | None:
        """A program's output, whatever its exit status; None if it cannot run or takes too long."""
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
        """The ids and names of the processes that we may examine."""
        for entry in self._proc.iterdir():
            if entry.name.isdecimal():
                try:
                    yield int(entry.name), (entry / "comm").read_text(errors="replace").strip()
                except OSError:
                    continue

    def parent(self, pid: int) -> int:
        """The parent of the process; 0 if it cannot be found out."""
        try:
            status = (self._proc / str(pid) / "status").read_text(errors="replace")
        except OSError:
            return 0
        return next((int(line[5:]) for line in status.splitlines() if line.startswith("PPid:")), 0)

    def uses_file(self, pid: int, beginning: str) -> bool:
        """Whether the process has a file open whose path begins so; False if we may not see it."""
        try:
            return any(
                os.readlink(descriptor).startswith(beginning)
                for descriptor in (self._proc / str(pid) / "fd").iterdir()
            )
        except OSError:
            return False

    def maps_file(self, pid: int, name: str) -> bool:
        """Whether the process has loaded a library with `name` in its path; False if we may not see it."""
        try:
            return name in (self._proc / str(pid) / "maps").read_text(errors="replace")
        except OSError:
            return False
