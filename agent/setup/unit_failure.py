"""Why systemd could not start the agent: its exit statuses and journal, in words."""

from __future__ import annotations

from dataclasses import dataclass

from replug.agent.setup.units import SERVICE, SOCKET
from replug.agent.setup.user_manager import UnitState, UserManager
from replug.token.identity import printable

_MOST_LINES = 4
_SHOW = f"systemctl --user cat {SERVICE}"
_STEPS = {
    200: ("CHDIR", "the working folder cannot be entered", f"remove WorkingDirectory=: {_SHOW}"),
    203: (
        "EXEC",
        "the agent's program, or the interpreter that its first line names, is missing or cannot be executed",
        "install replug again; replug setup",
    ),
    216: ("GROUP", "the group cannot be changed", f"remove Group= and SupplementaryGroups=: {_SHOW}"),
    217: (
        "USER",
        "user namespaces, or another user, are not allowed here",
        f"remove PrivateUsers= and User=, which replug's unit does not have: {_SHOW}",
    ),
    218: ("CAPABILITIES", "capabilities cannot be set", f"remove what sets them: {_SHOW}"),
    226: (
        "NAMESPACE",
        "the unit's file system cannot be set up: a path is missing, or mounts are not allowed here",
        f"remove Protect*=, Private*= and *Paths=, which replug's unit does not have: {_SHOW}",
    ),
    228: ("SECCOMP", "system calls cannot be filtered here", f"relax SystemCallFilter=: {_SHOW}"),
    233: ("RUNTIME_DIRECTORY", "the runtime folder cannot be made", "see what is at $XDG_RUNTIME_DIR/replug"),
    243: ("CREDENTIALS", "a credential cannot be read", f"correct LoadCredential=: {_SHOW}"),
}
"""By exit status: systemd's name for the step (systemd.exec(5)), what it means here, and what to do."""


@dataclass(frozen=True)
class Failure:
    """Why a unit does not run."""

    reason: str
    fix: str
    """What to do; empty if that is not known."""


def failure(service: UnitState) -> Failure:
    """What the state of the agent's service says of its last start."""
    if not service.condition:
        return Failure("the agent's program is no longer there", "install replug again; replug setup")
    if service.status in _STEPS:
        name, reason, fix = _STEPS[service.status]
        return Failure(f"status {service.status}/{name}: {reason}", fix)
    status = f", exit status {service.status}" if service.status else ""
    return Failure(f"{service.result}{status}", "")


def systemd_lines(manager: UserManager, since: float) -> list[str]:
    """The last lines of the journal on our units, marked as such, since a time in seconds since 1970."""
    lines = manager.journal(SERVICE, SOCKET, since=since, most=_MOST_LINES)
    return [f"systemd: {printable(line)}" for line in lines]
