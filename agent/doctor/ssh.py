"""Does ssh reach this agent: $SSH_AUTH_SOCK, ssh's configuration, the unit, the number of keys."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from replug.agent.doctor.finding import Finding, fail, ok, warn
from replug.agent.doctor.machine import Machine

_MOST_KEYS = 5  # sshd's MaxAuthTries is 6, and a password wants one of them
_DEEPEST_INCLUDE = 16  # as OpenSSH has it (readconf.c, READCONF_MAX_DEPTH)
_UNITS = ("replug-agent.socket", "replug-agent.service")
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
"""How the sockets end that systemd makes for agents, and so is at the other end of."""


def check_socket(machine: Machine) -> Iterator[Finding]:
    """$SSH_AUTH_SOCK names a replug-agent that answers."""
    found = machine.agent
    if found.problem:
        yield fail("agent", found.problem, _point_at(machine))
    elif found.status is not None:
        yield ok("agent", f"replug-agent (pid {found.status['pid']}) answers at {found.path}")
    elif found.program == "replug-agent":
        yield fail(
            "agent",
            f"replug-agent answers at {found.path}, but its control socket beside that does not",
            "end that agent and start it again; replug logs says why",
        )
    else:
        other = next((name for end, name in _PLACES.items() if found.path.endswith(end)), None)
        other = _NAMES.get(found.program) or other or found.program or "another program"
        yield fail("agent", f"SSH_AUTH_SOCK is {found.path}, where {other} answers", _point_at(machine))


def check_keys(machine: Machine) -> Iterator[Finding]:
    """Servers do not give up before the right key's turn."""
    count = machine.agent.identities
    if machine.status is not None and machine.status["locked"]:
        yield warn("keys", "the agent is locked: it offers no keys", "ssh-add -X")
    elif count > _MOST_KEYS:
        yield warn(
            "keys",
            f'ssh is offered {count} keys; servers say "Too many authentication failures" after a few',
            "in ~/.ssh/config under Host: IdentitiesOnly yes, IdentityFile KEY.pub (from ssh-add -L)",
        )
    elif count:
        yield ok("keys", f"ssh is offered {count}")
    elif machine.status is not None:
        yield warn("keys", "ssh is offered none", "plug a token in, or ssh-add -s MODULE")


def check_ssh_config(machine: Machine) -> Iterator[Finding]:
    """ssh's configuration does not send it to another agent."""
    for file in (machine.home / ".ssh" / "config", machine.etc / "ssh" / "ssh_config"):
        for place, host, value in _identity_agents(file, file.parent, 0):
            if value == "SSH_AUTH_SOCK" or (
                machine.agent.path and _expand(machine, value) == machine.agent.path
            ):
                continue
            what = "uses no agent" if value == "none" else f"uses {value} instead of SSH_AUTH_SOCK"
            yield warn("ssh-config", f"for {host}, ssh {what} ({place})", "remove that IdentityAgent line")


def _identity_agents(file: Path, folder: Path, depth: int) -> Iterator[tuple[str, str, str]]:
    """Where, for which hosts, and to what IdentityAgent is set (ssh_config(5))."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return
    host = "all hosts"
    for number, line in enumerate(lines, 1):
        words = line.replace("=", " ", 1).replace('"', "").split()
        match [words[0].lower(), *words[1:]] if words else []:
            case ["host", *patterns]:
                host = " ".join(patterns)
            case ["match", *conditions]:
                host = "match " + " ".join(conditions)
            case ["identityagent", value, *_]:
                yield f"{file}:{number}", host, value
            case ["include", *names] if depth < _DEEPEST_INCLUDE:
                for name in names:
                    pattern = os.path.join(folder, os.path.expanduser(name))
                    for included in sorted(glob.glob(pattern)):
                        yield from _identity_agents(Path(included), folder, depth + 1)


def _expand(machine: Machine, value: str) -> str:
    """The path that ssh makes of the value: ~, ${NAME}, $NAME and %d (ssh_config(5), TOKENS)."""
    if value.startswith("$"):
        name = value.lstrip("$").strip("{}")
        return machine.environment.get(name, value)
    value = value.replace("%d", str(machine.home)).replace("%i", str(machine.user))
    for name, content in machine.environment.items():
        value = value.replace(f"${{{name}}}", content)
    return str(machine.home) + value[1:] if value.startswith("~/") else value


def check_unit(machine: Machine) -> Iterator[Finding]:
    """systemd starts the agent at the first connection."""
    told = machine.ask_program(
        "systemctl", "--user", "show", "--property=Id,LoadState,ActiveState,Result", *_UNITS
    )
    units = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in (told or "").split("\n\n")
    ]
    by_name = {unit["Id"]: unit for unit in units if "Id" in unit}
    listening, service = (by_name.get(name, {}) for name in _UNITS)
    if not by_name:
        yield ok("unit", "no systemd user manager runs here, so the agent is started by hand")
    elif listening.get("LoadState") != "loaded":
        yield warn(
            "unit", "replug-agent.socket is not installed: nothing starts the agent at login", "replug setup"
        )
    elif service.get("ActiveState") == "failed":
        yield fail(
            "unit",
            f"replug-agent.service has failed ({service.get('Result')}); replug logs says why",
            "systemctl --user reset-failed 'replug-agent.*'; systemctl --user restart replug-agent.socket",
        )
    elif listening.get("ActiveState") != "active":
        yield fail(
            "unit",
            f"replug-agent.socket is {listening.get('ActiveState')}: nothing starts the agent",
            "systemctl --user enable --now replug-agent.socket",
        )
    else:
        yield ok("unit", f"replug-agent.socket is active, its service is {service.get('ActiveState')}")


def _point_at(machine: Machine) -> str:
    """How to make SSH_AUTH_SOCK right."""
    runtime = machine.environment.get("XDG_RUNTIME_DIR")
    if runtime and (Path(runtime) / "replug" / "agent.sock").is_socket():
        return 'export SSH_AUTH_SOCK="$XDG_RUNTIME_DIR/replug/agent.sock"'
    return "replug setup for every login, or eval $(replug-agent -s) for this shell"
