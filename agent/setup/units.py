"""The files that `replug setup` writes: units that start the agent, and SSH_AUTH_SOCK for sessions."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from replug.agent.setup.user_manager import config_home, units_folder

SOCKET = "replug-agent.socket"
SERVICE = "replug-agent.service"
AGENT_SOCKET = "replug/agent.sock"
"""Where SOCKET listens, in $XDG_RUNTIME_DIR."""
_ENVIRONMENT = "60-replug.conf"
_SOURCES = Path(__file__).parents[2] / "systemd"
_PROGRAM = "replug-agent"


class ProgramError(Exception):
    """No unit can rely on the agent's program where it is; the text has the next step."""


def unit_files(program: Path) -> dict[Path, str]:
    """The text of every file by its path; the units start `program`."""
    service = (_SOURCES / SERVICE).read_text(encoding="utf-8")
    command = f"ExecStart={quoted(str(program))} "
    service, count = re.subn(r"^ExecStart=\S+ ", lambda _: command, service, flags=re.MULTILINE)
    assert count == 1
    reload = f"ExecReload={quoted(str(program.with_name('replug')))} "
    service, count = re.subn(r"^ExecReload=\S+ ", lambda _: reload, service, flags=re.MULTILINE)
    assert count == 1
    files = {units_folder() / SERVICE: service}
    files[units_folder() / SOCKET] = (_SOURCES / SOCKET).read_text(encoding="utf-8")
    files[config_home() / "environment.d" / _ENVIRONMENT] = (_SOURCES / _ENVIRONMENT).read_text(
        encoding="utf-8"
    )
    return files


def agent_program() -> Path:
    """The `replug-agent` that was installed with the running `replug`; ProgramError.

    Links are not resolved: the one in ~/.local/bin outlives its target, which pipx and uv replace.
    """
    started = shutil.which(sys.argv[0])
    beside = [Path(started).absolute()] if started else []
    beside.append(Path(sys.executable))
    for path in (one.with_name(_PROGRAM) for one in beside):
        if os.access(path, os.X_OK):
            break
    else:
        raise ProgramError(f"there is no {_PROGRAM} beside {beside[0]}; install replug again")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if path.resolve().is_relative_to(cache.resolve()):
        raise ProgramError(f"{path} is in a cache and will be deleted: install it (pipx install replug)")
    return path


def quoted(path: str) -> str:
    """A path as the first word of ExecStart= (systemd.service(5), "Command lines").

    Raises ProgramError for a path that systemd rejects (basic/string-util.c string_is_safe).
    """
    if not path.isprintable() or re.search(r"[\\\"']", path):
        raise ProgramError(f"systemd cannot start a program at {path!r}; install replug elsewhere")
    return f'"{path.replace("%", "%%")}"' if re.search(r"[^\w%+=:,./~-]", path) else path.replace("%", "%%")
