"""Another agent that is kept behind replug: a line in the configuration, which can be taken out again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from replug.agent.config.file import config_path
from replug.agent.config.kinds import quoted
from replug.agent.keys.regular_file import contents_of
from replug.agent.setup.record import KeptAgent, write_file
from replug.token.trusted_file import write_whole

_UNIT_SOCKETS = {
    "gcr-ssh-agent.socket": "gcr/ssh",
    "gpg-agent-ssh.socket": "gnupg/S.gpg-agent.ssh",
}
"""Where they listen, in $XDG_RUNTIME_DIR. These units have set SSH_AUTH_SOCK when they are started."""
_SET_AFTER_US = ("keyring/ssh", "openssh_agent")
"""Sockets of agents that set SSH_AUTH_SOCK at login some time after they were started."""


def socket_of(unit: str, runtime: str) -> str:
    """Where the agent of the unit listens; empty if it cannot be kept."""
    return f"{runtime}/{_UNIT_SOCKETS[unit]}" if unit in _UNIT_SOCKETS else ""


def that_can_be_kept(sockets: Iterable[str], runtime: str) -> str:
    """The first of the sockets that is there at every login, in the same place; empty if none is."""
    for socket in sockets:
        inside = socket.removeprefix(f"{runtime}/")
        if inside != socket:
            if inside not in _SET_AFTER_US and os.path.exists(socket):
                return socket
        elif Path(socket).is_relative_to(Path.home()) and os.path.exists(socket):
            return socket
    return ""


def sockets_behind() -> tuple[str, ...]:
    """Those that the configuration names; none if it has errors."""
    from replug.agent.config.reader import read_config  # slow

    try:
        text = contents_of(config_path()).decode()
    except (OSError, UnicodeDecodeError):
        return ()
    return read_config(text).config.upstreams


def names_others(path: Path) -> bool:
    """Whether the file says already which agents are behind this one, or cannot be read."""
    import tomllib  # slow

    try:
        return "upstreams" in tomllib.loads(contents_of(path).decode())
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True


def keeping(socket: str, runtime: str) -> KeptAgent:
    """What is to be written to keep the agent at `socket`."""
    inside = socket.removeprefix(f"{runtime}/")
    value = socket if inside == socket else f"$XDG_RUNTIME_DIR/{inside}"
    path = config_path()
    lines = (
        "# Added by replug setup; replug setup --remove takes these lines out again.\n"
        f"upstreams = [{quoted(value)}]\n\n"
    )
    return KeptAgent(socket, str(path), lines, made=not path.exists())


def write(kept: KeptAgent) -> None:
    """Write the lines, above all others: what follows a table belongs to that. OSError."""
    path = Path(kept.path)
    if not path.exists():
        write_file(path, kept.lines)
        return
    text = contents_of(path)
    _rewrite(path, kept.lines.encode() + text)


def is_as_written(kept: KeptAgent) -> bool:
    """Whether the lines are there."""
    try:
        return kept.lines.encode() in contents_of(Path(kept.path))
    except OSError:
        return False


def take_out(kept: KeptAgent) -> None:
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
