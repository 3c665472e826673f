"""The sockets for some of the keys, and rules for keys: whether they are there, and name any."""

from __future__ import annotations

from collections.abc import Iterator

from replug.agent.config.key_match import fits
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


def check_named(machine: Machine) -> Iterator[Finding]:
    """Each `[[key]]` and `[[socket]]` names a key, by the agent's own list of all."""
    keys, config = machine.keys, machine.config
    if not keys or machine.agent.path in [socket.path for socket in config.sockets]:
        return
    named = [("[[key]]", "match", rule.match) for rule in config.key_rules]
    named += [("[[socket]]", "keys", socket.keys) for socket in config.sockets]
    for table, name, patterns in dict.fromkeys(named):
        if not any(fits(patterns, key.key_blob, key.comment) for key in keys):
            yield warn(
                "named",
                f"no key that is listed now is named by a {table} with {name} = {', '.join(patterns)}",
                "if no token is out that has them, correct it: ssh-add -l shows comments and fingerprints",
            )
