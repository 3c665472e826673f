"""Other agents that a session may have, and what in the user's files leads past replug."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from replug.agent.setup.record import Replaced
from replug.agent.setup.user_manager import UserManager, config_home, units_folder

_UNITS = {
    "gcr-ssh-agent.socket": "the agent of GNOME's gcr",
    "ssh-agent.socket": "OpenSSH's agent",
    "ssh-agent.service": "OpenSSH's agent",
    "gpg-agent-ssh.socket": "gpg-agent's support for ssh",
}
_GPG_SOCKET = "S.gpg-agent.ssh"
_KEYRING = "gnome-keyring-ssh.desktop"
KEYRING_OFF = "[Desktop Entry]\nType=Application\nName=SSH Key Agent\nHidden=true\n"
"""An autostart entry that takes the place of the system's and starts nothing (autostart specification)."""
_START_FILES = (".profile", ".bash_profile", ".bashrc", ".zshenv", ".zprofile", ".zshrc",
                ".config/fish/config.fish", ".xsessionrc", ".xprofile", ".pam_environment")  # fmt: skip
_AGENT_IN_SHELL = re.compile(
    r"^[^#]*(\bssh-agent\b|\bSSH_AUTH_SOCK=|\bset\b.*\bSSH_AUTH_SOCK\b|\bkeychain\b)"
)
_IDENTITY_AGENT = re.compile(r"^\s*IdentityAgent[\s=]+\"?([^\"\s]+)", re.IGNORECASE)


def what_it_is(unit: str) -> str:
    """Whose agent a unit starts, for a person."""
    return _UNITS.get(unit, "another agent")


def rival_units(manager: UserManager, sockets: list[str]) -> list[Replaced]:
    """The units of other agents that this session uses, and how they would be replaced.

    `sockets` are the values of SSH_AUTH_SOCK that are in use. gpg-agent's socket for ssh is enabled on every
    Debian, so being enabled does not mean that it is used. Raises ManagerError.
    """
    found = []
    for unit in _UNITS:
        state = manager.state(unit)
        if not state.loaded or not (state.active or state.enabled):
            continue
        if unit.startswith("gpg-") and not _uses_gpg(sockets):
            continue
        own = Path(state.fragment).is_relative_to(units_folder())
        found.append(Replaced(unit, masked=not own, enabled=state.enabled, active=state.active))
    return found


def rival_autostart() -> Path | None:
    """The autostart entry to write so that GNOME's keyring starts no agent; None if it does not anyway."""
    folders = (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
    own = config_home() / "autostart" / _KEYRING
    if own.exists() or not any(Path(folder, "autostart", _KEYRING).exists() for folder in folders):
        return None
    return own


def leads_elsewhere(ours: str) -> Iterator[str]:
    """What in the user's files makes programs use another agent than `ours`; replug edits none of them."""
    home = Path.home()
    for number, line in _lines(home / ".ssh" / "config"):
        match = _IDENTITY_AGENT.match(line)
        if match and match[1] not in ("SSH_AUTH_SOCK", "$SSH_AUTH_SOCK", ours):
            yield f"~/.ssh/config:{number} has ssh use {match[1]}: IdentityAgent goes before SSH_AUTH_SOCK"
    for number, line in _lines(_gpg_configuration()):
        if re.match(r"\s*enable-ssh-support\b", line):
            yield (
                f"{_gpg_configuration()}:{number} has gpg-agent take SSH_AUTH_SOCK at login: "
                "remove enable-ssh-support"
            )
    for name in _START_FILES:
        for number, line in _lines(home / name):
            if _AGENT_IN_SHELL.match(line) and ours not in line and "replug" not in line:
                yield f"~/{name}:{number} sets up an agent of its own: {line.strip()}"


def _uses_gpg(sockets: list[str]) -> bool:
    enabled = any(re.match(r"\s*enable-ssh-support\b", line) for _, line in _lines(_gpg_configuration()))
    return enabled or any(socket.endswith(f"/{_GPG_SOCKET}") for socket in sockets)


def _gpg_configuration() -> Path:
    return Path(os.environ.get("GNUPGHOME") or Path.home() / ".gnupg") / "gpg-agent.conf"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    yield from enumerate(text.splitlines(), 1)
