"""Whether ssh reaches this agent: $SSH_AUTH_SOCK, ssh's configuration, the unit, the number of keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from replug.agent.doctor.finding import Finding, fail, ok, warn
from replug.agent.doctor.machine import Machine
from replug.agent.setup.ssh_config import identity_agents
from replug.agent.setup.units import AGENT_SOCKET, SERVICE, SOCKET
from replug.agent.setup.user_manager import ManagerError, UserManager

_MOST_KEYS = 5  # sshd's MaxAuthTries is 6, and a password wants one of them
_NAMES = {
    "ssh-agent": "OpenSSH's ssh-agent",
    "gpg-agent": "GnuPG's gpg-agent",
    "gcr-ssh-agent": "GNOME's gcr-ssh-agent",
    "gnome-keyring-d": "GNOME's keyring",
    "sshd": "an agent forwarded from another machine, by sshd",
    "sshd-session": "an agent forwarded from another machine, by sshd",
}
_PLACES = {
    "/S.gpg-agent.ssh": "GnuPG's gpg-agent",
    "/gcr/ssh": "GNOME's gcr-ssh-agent",
    "/keyring/ssh": "GNOME's keyring",
    "/openssh_agent": "OpenSSH's ssh-agent",
}
"""By the end of the socket's path: systemd listens at these, so the process there is not the agent."""


def check_socket(machine: Machine) -> Iterator[Finding]:
    """$SSH_AUTH_SOCK names a replug-agent that answers."""
    found = machine.agent
    if found.reason:
        yield fail("agent", found.reason, _point_at(machine))
    elif found.status is not None:
        yield ok("agent", f"replug-agent (pid {found.status['pid']}) answers at {found.path}")
    elif found.program == "replug-agent":
        yield fail(
            "agent",
            f"replug-agent answers at {found.path}, but not at its control socket",
            "restart that agent; replug logs shows the reason",
        )
    else:
        other = next((name for end, name in _PLACES.items() if found.path.endswith(end)), None)
        other = _NAMES.get(found.program) or other or found.program or "another program"
        yield fail("agent", f"SSH_AUTH_SOCK is {found.path}, where {other} answers", _point_at(machine))


def check_memory(machine: Machine) -> Iterator[Finding]:
    """No other program of the user can read the agent's memory."""
    if machine.status is None:
        return
    if machine.status.get("memory_readable", True):
        yield fail(
            "memory",
            "other programs of yours can read PINs and keys in the agent's memory: its unit has"
            " PrivateUsers=, as that of replug 0.1.0 had, or the agent is older than this replug",
            f"replug setup; systemctl --user stop {SERVICE}; if it stays, see systemctl --user cat {SERVICE}",
        )
    else:
        yield ok("memory", "no other program of yours can read the agent's memory")


def check_keys(machine: Machine) -> Iterator[Finding]:
    """The agent offers so few keys that no server refuses ssh before the right one."""
    count = machine.agent.identities
    if machine.status is not None and machine.status["locked"]:
        yield warn("keys", "the agent is locked: it offers no keys", "ssh-add -X")
    elif count > _MOST_KEYS:
        yield warn(
            "keys",
            f'the agent offers {count} keys; servers say "Too many authentication failures" after a few',
            "in ~/.ssh/config under Host: IdentitiesOnly yes, IdentityFile KEY.pub (from ssh-add -L)",
        )
    elif count:
        yield ok("keys", f"the agent offers {count} {'key' if count == 1 else 'keys'}")
    elif machine.status is not None:
        tokens = machine.status["tokens"]
        if any(token.get("without_keys") for token in tokens):
            yield warn(
                "keys", "the agent offers no keys", "make one on the token: see the findings on it below"
            )
        else:
            yield warn("keys", "the agent offers no keys", "plug a token in, or ssh-add -s MODULE")


def check_ssh_config(machine: Machine) -> Iterator[Finding]:
    """ssh's configuration does not name another agent."""
    for file in (machine.home / ".ssh" / "config", machine.root / "etc" / "ssh" / "ssh_config"):
        for line in identity_agents(file):
            if line.leads_to(machine.agent.path, machine.environment, machine.home):
                continue
            what = "uses no agent" if line.value == "none" else f"uses {line.value} instead of SSH_AUTH_SOCK"
            yield warn(
                "ssh-config", f"for {line.hosts}, ssh {what} ({line.place})", "remove that IdentityAgent line"
            )


def check_unit(machine: Machine) -> Iterator[Finding]:
    """systemd starts the agent at the first connection."""
    manager = UserManager(machine.environment)
    try:
        socket, service = manager.state(SOCKET), manager.state(SERVICE)
    except ManagerError:
        yield ok("unit", "no systemd user manager runs here, so the agent is started by hand")
        return
    if not socket.loaded:
        yield warn("unit", f"{SOCKET} is not installed: nothing starts the agent at login", "replug setup")
    elif service.active_state == "failed":
        yield fail(
            "unit",
            f"{SERVICE} has failed ({service.result}); replug logs shows the reason",
            f"systemctl --user reset-failed 'replug-agent.*'; systemctl --user restart {SOCKET}",
        )
    elif socket.active_state != "active":
        yield fail(
            "unit",
            f"{SOCKET} is {socket.active_state}: nothing starts the agent",
            f"systemctl --user enable --now {SOCKET}",
        )
    else:
        yield ok("unit", f"{SOCKET} is active, its service is {service.active_state}")


def _point_at(machine: Machine) -> str:
    """How to reach a replug-agent by SSH_AUTH_SOCK."""
    runtime = machine.environment.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime, AGENT_SOCKET).is_socket():
        if machine.agent.path == str(Path(runtime, AGENT_SOCKET)):
            return f"correct what replug logs shows; systemctl --user restart {SOCKET}"
        return f'export SSH_AUTH_SOCK="$XDG_RUNTIME_DIR/{AGENT_SOCKET}"'
    return "replug setup for every login, or eval $(replug-agent -s) for this shell"
