"""The sockets for some of the keys: whether they are there."""

from __future__ import annotations

from collections.abc import Iterator

from replug.agent.doctor.finding import Finding, ok, warn
from replug.agent.doctor.machine import Machine


def check_views(machine: Machine) -> Iterator[Finding]:
    """The agent listens at each `[[socket]]`."""
    sockets = (machine.status or {}).get("sockets", [])
    failed = [socket for socket in sockets if socket["failed"]]
    for socket in failed:
        reason = f"there is no socket {socket['path']}: {socket['failed']}"
        fix = f"{socket['next_step']}; replug reload" if socket["next_step"] else "replug reload"
        yield warn("views", reason, fix)
    if sockets and not failed:
        yield ok("views", f"the agent listens at {', '.join(socket['path'] for socket in sockets)}")
