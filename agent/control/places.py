"""Where an agent of this user may listen, and whose agent listens at a path."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

from replug.agent.clients.peer import Peer

AGENT_SOCKET = "replug/agent.sock"
"""Where the agent of `replug setup` listens, in $XDG_RUNTIME_DIR."""
_IN_PROFILE = "replug.sock"
"""Where the agent listens that ~/.profile starts, in $XDG_RUNTIME_DIR or ~/.ssh."""
SYSTEM_SOCKET = "/run/replug-ca/agent.sock"
"""Where the agent of `replug setup --ca` listens, for guests; its folder belongs to the user it runs as."""
SYSTEM_ENVIRONMENT = {"XDG_CONFIG_HOME": "/etc", "XDG_STATE_HOME": "/var/lib/replug-ca"}
"""What its unit sets: the configuration is /etc/replug/config.toml."""
_PATIENCE = 5.0  # seconds to connect
_NAMES = {
    "ssh-agent": "OpenSSH's ssh-agent",
    "gpg-agent": "GnuPG's gpg-agent",
    "gcr-ssh-agent": "GNOME's gcr-ssh-agent",
    "gnome-keyring-d": "GNOME's keyring",
    "sshd": "an agent forwarded from another machine, by sshd",
    "sshd-session": "an agent forwarded from another machine, by sshd",
}
_ENDINGS = {
    "/S.gpg-agent.ssh": "GnuPG's gpg-agent",
    "/gcr/ssh": "GNOME's gcr-ssh-agent",
    "/keyring/ssh": "GNOME's keyring",
    "/openssh_agent": "OpenSSH's ssh-agent",
}
"""By the end of the socket's path: systemd listens at these, so the process there is not the agent."""


def runtime_folder(environment: Mapping[str, str]) -> str:
    """$XDG_RUNTIME_DIR, or where that is for this user; after su and in cron jobs it is not set."""
    return environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"


def own_socket(environment: Mapping[str, str]) -> str | None:
    """The socket of this user's own agent, as replug sets it up; None if there is none."""
    return next(filter(_is_own, _usual(environment)), None)


def _usual(environment: Mapping[str, str]) -> Iterator[str]:
    runtime = runtime_folder(environment)
    yield f"{runtime}/{AGENT_SOCKET}"
    yield f"{runtime}/{_IN_PROFILE}"
    yield f"{environment.get('HOME') or Path.home()}/.ssh/{_IN_PROFILE}"


def _is_own(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISSOCK(status.st_mode) and status.st_uid == os.getuid()


def is_system_service(path: str) -> bool:
    """Whether the agent of `replug setup --ca` listens at `path`, and this process is no guest of it.

    That is: root's, or that of the user whom the agent runs as.
    """
    return path == SYSTEM_SOCKET and os.geteuid() in (0, _owner(os.path.dirname(SYSTEM_SOCKET)))


def choose_system_service(environment: MutableMapping[str, str]) -> None:
    """Let `environment` be that of the agent of `replug setup --ca`.

    If it is there, this process is no guest of it, and no other agent was chosen.
    """
    named = environment.get("SSH_AUTH_SOCK") or SYSTEM_SOCKET
    if is_system_service(named) and os.path.exists(named):
        environment.update({"SSH_AUTH_SOCK": named, **SYSTEM_ENVIRONMENT})


def _owner(folder: str) -> int:
    """The number of the user; 0 if there is no such folder."""
    try:
        return os.stat(folder).st_uid
    except OSError:
        return 0


def program_name(pid: int, proc: Path) -> str:
    """The name of the process; empty if it cannot be found out."""
    try:
        return (proc / str(pid) / "comm").read_text(errors="replace").strip()
    except OSError:
        return ""


def name_of_agent(path: str, program: str) -> str:
    """The agent at `path` in words, where the process `program` made the socket."""
    other = next((name for end, name in _ENDINGS.items() if path.endswith(end)), None)
    return _NAMES.get(program) or other or program or "another program"


def another_agent(path: str) -> str | None:
    """The name of the agent that listens at `path`; None if nothing does, or if it is ours."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_PATIENCE)
        try:
            client.connect(path)
            program = program_name(Peer.of(client).pid, Path("/proc"))
        except OSError:
            return None
    ours = program == "replug-agent" or path.endswith(f"/{AGENT_SOCKET}") or path == SYSTEM_SOCKET
    return None if ours else name_of_agent(path, program)
