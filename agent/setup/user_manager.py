"""The user's service manager, and the system's, through systemctl(1)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PATIENCE = 60.0  # seconds; stopping a unit can take long
_PATIENCE_TO_SHOW = 10.0  # seconds


class ManagerError(Exception):
    """There is no user manager, or it refused; the text is systemctl's."""


@dataclass(frozen=True)
class UnitState:
    """The state of a unit."""

    loaded: bool
    active_state: str
    """`active`, `inactive`, `failed` and others (systemctl(1), "Unit states")."""
    result: str
    """The reason for `failed`, such as `exit-code`; empty for units that have none."""
    status: int
    """The exit status of its main process; 0 for a socket, and as long as none has ended."""
    condition: bool
    """Whether its conditions were met when it was last started, or it was not yet."""
    enabled: bool
    fragment: str
    """The path of the file that defines it; empty if there is none."""

    @property
    def active(self) -> bool:
        """Whether it runs or is about to."""
        return self.active_state in ("active", "activating", "reloading")


class UserManager:
    """`systemctl --user`; all methods raise ManagerError."""

    _whose: tuple[str, ...] = ("--user",)

    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment` says where the manager is; XDG_RUNTIME_DIR may be missing, as after su."""
        runtime = f"/run/user/{os.getuid()}"
        self._environment = dict(environment)
        if "XDG_RUNTIME_DIR" not in environment and os.path.isdir(runtime):
            self._environment["XDG_RUNTIME_DIR"] = runtime

    def call(self, *arguments: str, patience: float = _PATIENCE) -> str:
        """The output of systemctl, in English, for which to wait at most `patience` seconds."""
        command = ["systemctl", *self._whose, "--quiet", *arguments]
        try:
            done = subprocess.run(
                command,
                env=self._environment | {"LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=patience,
            )
        except FileNotFoundError:
            raise ManagerError("this machine has no systemctl, so it does not run systemd") from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ManagerError(f"{' '.join(command)}: {error}") from error
        if done.returncode != 0:
            reason = done.stderr.strip() or f"exit status {done.returncode}"
            raise ManagerError(f"{' '.join(command)}: {reason}")
        return done.stdout

    def environment(self) -> dict[str, str]:
        """The environment of the programs it starts. Values that need quoting in a shell are quoted."""
        lines = self.call("show-environment", patience=_PATIENCE_TO_SHOW).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def state(self, unit: str) -> UnitState:
        """The state of a unit, which need not exist."""
        wanted = "LoadState,ActiveState,Result,ExecMainStatus,ConditionResult,UnitFileState,FragmentPath"
        wanted += ",ConditionTimestampMonotonic"
        shown = self.call("show", f"--property={wanted}", unit, patience=_PATIENCE_TO_SHOW)
        values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        return UnitState(
            loaded=values.get("LoadState") == "loaded",
            active_state=values.get("ActiveState", ""),
            result=values.get("Result", ""),
            status=int(values.get("ExecMainStatus") or 0),
            condition=values.get("ConditionResult") != "no"
            or values.get("ConditionTimestampMonotonic") == "0",
            enabled=values.get("UnitFileState") in ("enabled", "enabled-runtime"),
            fragment=values.get("FragmentPath", ""),
        )

    def end(self, *units: str) -> None:
        """Stop and disable those that there are; of some an interrupted removal has left no file."""
        states = {unit: self.state(unit) for unit in units}
        whole = [unit for unit, state in states.items() if os.path.exists(state.fragment)]
        rest = [unit for unit, state in states.items() if unit not in whole and state.active]
        if whole:
            self.call("disable", "--now", *whole)
        if rest:
            self.call("stop", *rest)

    def unit_folders(self) -> list[Path]:
        """Where it looks for units, in this order."""
        shown = self.call("show", "--property=UnitPath", "--value", patience=_PATIENCE_TO_SHOW)
        return [Path(folder) for folder in shown.split()]

    def journal(self, *units: str, since: float, most: int) -> list[str]:
        """The last lines of the journal on these units and of them, since a time in seconds since 1970.

        Nothing if there is no journal, or the user may not read it.
        """
        command = ["journalctl", *self._whose, "--quiet", "--no-pager", "--output=cat"]
        command += [f"--lines={most}", f"--since=@{int(since)}", *self._matches(*units)]
        try:
            done = subprocess.run(
                command, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, encoding="utf-8", errors="replace", timeout=_PATIENCE_TO_SHOW,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return []
        return done.stdout.splitlines() if done.returncode == 0 else []

    def _matches(self, *units: str) -> list[str]:
        return journal_matches(*units)


class SystemManager(UserManager):
    """`systemctl`, for root."""

    _whose = ()

    def _matches(self, *units: str) -> list[str]:
        return [f"--unit={unit}" for unit in units]


def journal_matches(*units: str) -> list[str]:
    """journalctl's arguments for what the user manager writes about these units, and they themselves."""
    fields = [f"{field}={unit}" for unit in units for field in ("USER_UNIT", "_SYSTEMD_USER_UNIT")]
    return " + ".join(fields).split(" ")


def units_folder() -> Path:
    """The folder of the user's own units (systemd.unit(5))."""
    return config_home() / "systemd" / "user"


def config_home() -> Path:
    """$XDG_CONFIG_HOME if it is absolute, as for systemd, else ~/.config."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(given) if os.path.isabs(given) else Path.home() / ".config"
