"""Other agents of the session, and lines in the user's files that make programs use another agent."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from replug.agent.keys.regular_file import contents_of, lines_of
from replug.agent.setup.kept_agent import configuration
from replug.agent.setup.record import Replaced
from replug.agent.setup.ssh_config import identity_agents
from replug.agent.setup.user_manager import UserManager, config_home

_UNITS = {
    "gcr-ssh-agent.socket": "the agent of GNOME's gcr",
    "ssh-agent.socket": "OpenSSH's agent",
    "ssh-agent.service": "OpenSSH's agent",
    "gpg-agent-ssh.socket": "gpg-agent's support for ssh",
}
_GPG_SOCKET = "S.gpg-agent.ssh"
_KEYRING = "gnome-keyring-ssh.desktop"
_EXEC = re.compile(r"^Exec=(.*)$", re.MULTILINE)
_START_FILES = (".profile", ".bash_profile", ".bashrc", ".zshenv", ".zprofile", ".zshrc",
                ".config/fish/config.fish", ".xsessionrc", ".xprofile", ".pam_environment")  # fmt: skip
_AGENT_IN_SHELL = re.compile(
    r"^[^#]*(\bssh-agent\b|\bSSH_AUTH_SOCK=|\bset\b.*\bSSH_AUTH_SOCK\b|\bkeychain\b)"
)


def what_it_is(unit: str) -> str:
    """The agent that a unit starts, in words."""
    return _UNITS.get(unit, "another agent")


def rival_units(manager: UserManager, sockets: list[str]) -> list[Replaced]:
    """The units of other agents that this session uses, and whether they are active.

    `sockets` are the values of SSH_AUTH_SOCK in use. gpg-agent's socket for ssh is enabled on every
    Debian, so an enabled one need not be in use. Raises ManagerError.
    """
    found: list[Replaced] = []
    for unit in _UNITS:
        state = manager.state(unit)
        if not state.loaded or not (state.active or state.enabled):
            continue
        if unit.startswith("gpg-") and not _uses_gpg(sockets):
            continue
        if unit == "ssh-agent.service" and any(one.unit == "ssh-agent.socket" for one in found):
            continue  # it is the socket's, and ends with it (Requires=)
        found.append(Replaced(unit, active=state.active))
    return found


def rival_autostart(program: Path) -> tuple[Path, str] | None:
    """An autostart entry, with its path, by which GNOME's keyring starts no agent while `program` exists.

    None if it starts none anyway. The user's entry overrides the system's (autostart specification).
    """
    own = config_home() / "autostart" / _KEYRING
    folders = (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
    for folder in folders:
        with suppress(OSError):
            entry = contents_of(Path(folder, "autostart", _KEYRING)).decode()
            return own, _EXEC.sub(lambda found: f"Exec={_unless_installed(program, found[1])}", entry)
    return None


def _unless_installed(program: Path, command: str) -> str:
    """A command line of a desktop entry that runs `command` where `program` is not installed."""
    path = shlex.quote(str(program)).replace("%", "%%")
    script = f"test -x {path} || exec {command}"
    # Within quotes, and once more as the value of a key (desktop entry specification, "The Exec key").
    return 'sh -c "' + re.sub(r'(["`$\\])', r"\\\\\1", script) + '"'


def leads_elsewhere(ours: str) -> Iterator[str]:
    """The lines in the user's files that send programs to another agent than `ours`; replug edits none."""
    home, config = Path.home(), configuration()
    environment = dict(os.environ) | {"SSH_AUTH_SOCK": ours}
    sockets = [ours, *(socket.path for socket in config.sockets)] if config is not None else [ours]
    for line in identity_agents(home / ".ssh" / "config"):
        if not any(line.leads_to(socket, environment, home) for socket in sockets):
            yield f"{line.place} makes ssh use {line.value}: IdentityAgent overrides SSH_AUTH_SOCK"
    for number, text in _lines(_gpg_configuration()):
        if re.match(r"\s*enable-ssh-support\b", text):
            yield (
                f"{_gpg_configuration()}:{number} lets gpg-agent set SSH_AUTH_SOCK at login: "
                "remove enable-ssh-support"
            )
    for name in _START_FILES:
        for number, text in _lines(home / name):
            if _AGENT_IN_SHELL.match(text) and ours not in text and "replug" not in text:
                yield f"~/{name}:{number} starts or selects another agent: {text.strip()}"


def selects(socket: str) -> Iterator[str]:
    """The lines in the user's start files that name `socket`."""
    for name in _START_FILES:
        for number, text in _lines(Path.home() / name):
            if socket in text.partition("#")[0]:
                yield f"~/{name}:{number}: {text.strip()}"


def _uses_gpg(sockets: list[str]) -> bool:
    enabled = any(re.match(r"\s*enable-ssh-support\b", line) for _, line in _lines(_gpg_configuration()))
    return enabled or any(socket.endswith(f"/{_GPG_SOCKET}") for socket in sockets)


def _gpg_configuration() -> Path:
    return Path(os.environ.get("GNUPGHOME") or Path.home() / ".gnupg") / "gpg-agent.conf"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        lines = lines_of(path)
    except OSError:
        return
    yield from enumerate(lines, 1)
