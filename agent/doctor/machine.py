"""What the checks of `replug doctor` examine: this machine, or a stand-in for it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replug.agent.control.client import AskError, ask_at
from replug.agent.control.places import is_system_service, own_socket
from replug.agent.doctor.socket import SocketReport, examine
from replug.token.names.p11kit import Registry, read_registry
from replug.token.names.p11kit_files import P11KitFiles
from replug.token.noticing.pcsc_probe import ask_pcscd

if TYPE_CHECKING:
    from replug.agent.config.model import Config
    from replug.protocol.messages import ListedIdentity

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
    by_agent: bool = False
    """Whether it is the agent that asked."""

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
        """pcscd's answer to the agent, whose rights count; to this process if no agent can be asked."""
        answer, by_agent = self._asked_by_agent(), True
        if answer is None:
            answer, by_agent = ask_pcscd(self.environment), False
        return PcscReport(
            answer["library"],
            answer["code"],
            tuple(Reader(**reader) for reader in answer["readers"]),
            hung=answer["hung"],
            by_agent=by_agent,
        )

    def _asked_by_agent(self) -> dict[str, Any] | None:
        running = self.agent if self.agent.status is not None else self.own_agent
        if running.status is None:
            return None
        try:
            answer: dict[str, Any] | None = ask_at(running.path, "probe")["pcsc"]
        except AskError:  # an older one
            return None
        return answer

    @cached_property
    def agent(self) -> SocketReport:
        """The agent that answers at $SSH_AUTH_SOCK."""
        return examine(self.environment.get("SSH_AUTH_SOCK", ""), self._proc)

    @cached_property
    def own_agent(self) -> SocketReport:
        """The agent that replug has set up for this user, whatever $SSH_AUTH_SOCK names."""
        path = own_socket(self.environment)
        if path is None:
            return SocketReport(reason="no agent listens where replug setup has it listen")
        return self.agent if path == self.agent.path else examine(path, self._proc)

    @property
    def keys(self) -> tuple[ListedIdentity, ...]:
        """What that agent lists at $SSH_AUTH_SOCK; where that is not set, what the user's own lists."""
        return (self.agent if self.agent.path else self.own_agent).keys

    @property
    def is_system_service(self) -> bool:
        """Whether all this is about the agent of `replug setup --ca`, which root, or its user, looks at."""
        return is_system_service(self.environment.get("SSH_AUTH_SOCK", ""))

    @property
    def status(self) -> dict[str, Any] | None:
        """The running agent's status: at $SSH_AUTH_SOCK, else the user's own; None if neither answers."""
        return self.agent.status or self.own_agent.status

    @cached_property
    def clock_state(self) -> int | None:
        """What adjtimex(2) returns if nothing is to be set; None if it fails."""
        timex = ctypes.create_string_buffer(512)  # larger than the struct on any machine
        state: int = ctypes.CDLL(None).adjtimex(timex)
        return None if state < 0 else state

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
