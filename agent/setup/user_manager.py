"""The user's service manager, asked and told by systemctl(1)."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_PATIENCE = 60.0  # seconds; a unit's stop may take its time


class ManagerError(Exception):
    """There is no user manager to talk to, or it refused; the text is systemctl's."""


@dataclass(frozen=True)
class UnitState:
    """What the manager knows of a unit."""

    loaded: bool
    active: bool
    enabled: bool
    fragment: str
    """The path of the file that defines it; "" if there is none."""


class UserManager:
    """`systemctl --user`; all methods raise ManagerError."""

    def __init__(self) -> None:
        runtime = f"/run/user/{os.getuid()}"
        self._environment = dict(os.environ)
        if "XDG_RUNTIME_DIR" not in os.environ and os.path.isdir(runtime):  # after su, say
            self._environment["XDG_RUNTIME_DIR"] = runtime

    def call(self, *arguments: str) -> str:
        """What `systemctl --user` prints; quiet, and with English words."""
        command = ["systemctl", "--user", "--quiet", *arguments]
        try:
            done = subprocess.run(
                command,
                env=self._environment | {"LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_PATIENCE,
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
        """What programs that it starts get. Values that need quoting in a shell come quoted."""
        lines = self.call("show-environment").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def state(self, unit: str) -> UnitState:
        """The state of a unit, which need not exist."""
        wanted = "LoadState,ActiveState,UnitFileState,FragmentPath"
        lines = self.call("show", f"--property={wanted}", unit).splitlines()
        values = dict(line.split("=", 1) for line in lines if "=" in line)
        return UnitState(
            loaded=values.get("LoadState") == "loaded",
            active=values.get("ActiveState") in ("active", "activating", "reloading"),
            enabled=values.get("UnitFileState") in ("enabled", "enabled-runtime"),
            fragment=values.get("FragmentPath", ""),
        )


def units_folder() -> Path:
    """Where a user's own units are (systemd.unit(5))."""
    return config_home() / "systemd" / "user"


def config_home() -> Path:
    """$XDG_CONFIG_HOME, which systemd honours as we do, else ~/.config."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(given) if os.path.isabs(given) else Path.home() / ".config"
