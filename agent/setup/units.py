"""The units of `replug setup`, or of a package: they start the agent, and set SSH_AUTH_SOCK for sessions."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from replug.agent.keys.regular_file import lines_of
from replug.agent.setup.user_manager import units_folder

SOCKET = "replug-agent.socket"
SERVICE = "replug-agent.service"
_SOURCES = Path(__file__).parents[2] / "systemd"
_PROGRAM = "replug-agent"
_DROP_IN = "replug.conf"


class ProgramError(Exception):
    """No unit can rely on the agent's program where it is; the text has the next step."""


def unit_texts(program: Path) -> dict[str, str]:
    """The text of every unit by its name; they start `program`, and do nothing without it."""
    start, reload = quoted(str(program)), quoted(str(program.with_name("replug")))
    return {
        SERVICE: filled_in(
            SERVICE,
            (r"^ExecStart=\S+ ", f"ExecStart={start} "),
            (r"^ExecReload=\S+ ", f"ExecReload={reload} "),
            (r"^ConditionFileIsExecutable=.*", exists(program)),
        ),
        SOCKET: filled_in(SOCKET, (r"^ConditionFileIsExecutable=.*", exists(program))),
    }


def unit_files(program: Path, folders: Iterable[Path]) -> dict[Path, str]:
    """The units that the user needs in their own folder, by path: all or none.

    None if a package has installed units for `program` in another of systemd's `folders`, given in its order.
    """
    texts, others = unit_texts(program), [folder for folder in folders if folder != units_folder()]
    if all(_starts(program, name, others) for name in texts):
        return {}
    return {units_folder() / name: text for name, text in texts.items()}


def _starts(program: Path, name: str, folders: Iterable[Path]) -> bool:
    """Whether the unit that systemd finds in these folders starts `program`."""
    for folder in folders:
        with suppress(OSError):
            return exists(program) in lines_of(folder / name)
    return False


def held_back(unit: str, program: Path) -> tuple[Path, str]:
    """The path and text of a drop-in that keeps another agent's unit from starting while `program` exists.

    It is not disabled: a unit enabled for all users cannot be, by one. Nor is it masked: it is back by itself
    when replug is uninstalled.
    """
    text = (
        "# Written by replug setup: replug-agent replaces this agent for as long as it is installed.\n"
        f"[Unit]\n{exists(program, negated=True)}\n"
    )
    return units_folder() / f"{unit}.d" / _DROP_IN, text


def started_before(unit: str) -> tuple[Path, str]:
    """The path and text of a drop-in that has another agent set SSH_AUTH_SOCK before ours does."""
    text = (
        "# Written by replug setup: this agent is behind replug-agent, which programs are to use.\n"
        f"[Unit]\nBefore={SOCKET}\n"
    )
    return units_folder() / f"{unit}.d" / _DROP_IN, text


def exists(program: Path, *, negated: bool = False) -> str:
    """The condition of a unit that `program` is installed (systemd.unit(5)); the path is not quoted there."""
    return f"ConditionFileIsExecutable={'!' if negated else ''}{str(program).replace('%', '%%')}"


def filled_in(name: str, *lines: tuple[str, str]) -> str:
    """The unit as it is packaged, with these lines replaced, each of which it has once."""
    text = (_SOURCES / name).read_text(encoding="utf-8")
    for pattern, line in lines:
        text, count = re.subn(pattern, lambda _, line=line: line, text, flags=re.MULTILINE)  # type: ignore[misc]
        assert count == 1, (name, pattern)
    return text


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
