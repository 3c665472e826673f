"""Other agents that are kept behind replug: a line in the configuration, which can be taken out again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from replug.agent.config.file import config_path
from replug.agent.config.kinds import quoted
from replug.agent.keys.regular_file import contents_of
from replug.agent.setup.record import KeptAgents, write_file
from replug.token.trusted_file import write_whole

if TYPE_CHECKING:
    from replug.agent.config.model import Config

_UNIT_SOCKETS = {
    "gcr-ssh-agent.socket": "gcr/ssh",
    "gpg-agent-ssh.socket": "gnupg/S.gpg-agent.ssh",
    "ssh-agent.socket": "openssh_agent",
}
"""Where they listen, in $XDG_RUNTIME_DIR. These units have set SSH_AUTH_SOCK when they are started."""
_SET_AFTER_US = ("keyring/ssh", "openssh_agent")
"""Sockets of agents that set SSH_AUTH_SOCK some time after they were started, if no such unit does."""


def socket_of(unit: str, runtime: str) -> str:
    """Where the agent of the unit listens; empty if it cannot be kept."""
    return f"{runtime}/{_UNIT_SOCKETS[unit]}" if unit in _UNIT_SOCKETS else ""


def that_can_be_kept(used: str, units: Iterable[str], runtime: str) -> list[str]:
    """Of the socket that is `used` and those of `units`, which are in the same place at every login."""
    of_units = [socket for unit in units if (socket := socket_of(unit, runtime))]
    there = dict.fromkeys(filter(os.path.exists, (used, *of_units)))
    return [socket for socket in there if socket in of_units or _lasts(socket, runtime)]


def _lasts(socket: str, runtime: str) -> bool:
    inside = socket.removeprefix(f"{runtime}/")
    if inside != socket:
        return inside not in _SET_AFTER_US
    return Path(socket).is_relative_to(Path.home())


def sockets_behind() -> tuple[str, ...]:
    """Those that the configuration names; none if it has errors."""
    config = configuration()
    return () if config is None else config.upstreams


def configuration() -> Config | None:
    """What the file says where it has no errors; None without a file."""
    from replug.agent.config.reader import read_config  # slow

    try:
        return read_config(contents_of(config_path()).decode()).config
    except (OSError, UnicodeDecodeError):
        return None


def names_others(path: Path) -> bool:
    """Whether the file says already which agents are behind this one, or cannot be read."""
    import tomllib  # slow

    try:
        return "upstreams" in tomllib.loads(contents_of(path).decode())
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True


def keeping(sockets: list[str], runtime: str) -> KeptAgents:
    """What is to be written to keep the agents at `sockets`."""
    path = config_path()
    lines = (
        "# Added by replug setup; replug setup --remove takes these lines out again.\n"
        f"upstreams = [{', '.join(_written(socket, runtime) for socket in sockets)}]\n\n"
    )
    return KeptAgents(sockets, str(path), lines, made=not path.exists())


def _written(socket: str, runtime: str) -> str:
    inside = socket.removeprefix(f"{runtime}/")
    return quoted(socket if inside == socket else f"$XDG_RUNTIME_DIR/{inside}")


def write(kept: KeptAgents) -> None:
    """Write the lines, above all others: what follows a table belongs to that. OSError."""
    path = Path(kept.path)
    if not path.exists():
        write_file(path, kept.lines)
        return
    text = contents_of(path)
    _rewrite(path, kept.lines.encode() + text)


def is_as_written(kept: KeptAgents) -> bool:
    """Whether the lines are there."""
    try:
        return kept.lines.encode() in contents_of(Path(kept.path))
    except OSError:
        return False


def take_out(kept: KeptAgents) -> None:
    """Take the lines out, and with the last of them the file, if setup has made it. OSError."""
    path = Path(kept.path)
    text = contents_of(path).replace(kept.lines.encode(), b"", 1)
    if kept.made and not text:
        path.unlink()
    else:
        _rewrite(path, text)


def _rewrite(path: Path, text: bytes) -> None:
    """With its mode, and where a link leads."""
    file = path.resolve()
    write_whole(file, text, file.stat().st_mode & 0o777)
