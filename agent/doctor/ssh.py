"""Whether ssh reaches this agent: $SSH_AUTH_SOCK, ssh's configuration, the unit, the number of keys."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from replug.agent.config.key_match import rules_of
from replug.agent.control.places import AGENT_SOCKET, SYSTEM_SOCKET, name_of_agent
from replug.agent.control.release import change_over, older_agent, what_is_lost
from replug.agent.doctor.finding import Finding, fail, ok, warn
from replug.agent.doctor.machine import Machine
from replug.agent.key_rules.order import FEW
from replug.agent.setup import system_service
from replug.agent.setup.ssh_config import identity_agents
from replug.agent.setup.unit_failure import failure, systemd_lines
from replug.agent.setup.units import SERVICE, SOCKET
from replug.agent.setup.user_manager import ManagerError, SystemManager, UserManager
from replug.token.errors import clauses

_RECENT = 3600.0  # seconds: what systemd has said since then may be the reason


def check_socket(machine: Machine) -> Iterator[Finding]:
    """$SSH_AUTH_SOCK names a replug-agent that answers."""
    found = machine.agent
    if not machine.environment.get("SSH_AUTH_SOCK"):
        own = machine.own_agent
        answers = f", but replug-agent answers at {own.path}" if own.status is not None else ""
        yield fail("agent", f"SSH_AUTH_SOCK is not set{answers}", _point_at(machine))
    elif found.reason:
        yield fail("agent", found.reason, _point_at(machine))
    elif found.status is not None:
        yield ok("agent", f"replug-agent (pid {found.status['pid']}) answers at {found.path}")
    elif found.path in [socket["path"] for socket in (machine.status or {}).get("sockets", ())]:
        yield warn(
            "agent",
            f"SSH_AUTH_SOCK is {found.path}, a [[socket]] for some of the keys of the agent at"
            f" {machine.own_agent.path}",
            _point_at(machine),
        )
    elif found.program == "replug-agent":
        yield fail(
            "agent",
            f"replug-agent answers at {found.path}, but not at its control socket",
            "restart that agent; replug logs shows the reason",
        )
    else:
        other = name_of_agent(found.path, found.program)
        yield fail("agent", f"SSH_AUTH_SOCK is {found.path}, where {other} answers", _point_at(machine))


def check_release(machine: Machine) -> Iterator[Finding]:
    """The agent that runs is the one that is installed."""
    from importlib.metadata import version  # slow

    if machine.status is None:
        return
    older = older_agent(machine.status, version("replug"))
    if older:
        yield warn(
            "release", f"{older}. {what_is_lost(machine.status)}", change_over(machine.status["socket"])
        )


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
        # A package's files are root's; those of pipx and virtual environments are not.
        yours = os.getuid() != 0 and os.access(__file__, os.W_OK, effective_ids=True)
        but = "; but what writes into replug's files, which are yours, changes what it does" if yours else ""
        yield ok("memory", f"no other program of yours can read the agent's memory{but}")


def check_keys(machine: Machine) -> Iterator[Finding]:
    """The agent offers so few keys that no server refuses ssh before the right one."""
    keys = machine.keys
    rules = [rule for rule in machine.config.key_rules if rule.chooses]
    everywhere = sum(not any(rules_of(rules, key.key_blob, key.comment)) for key in keys)
    count = len(keys)
    if machine.status is not None and machine.status["locked"]:
        yield warn("keys", "the agent is locked: it offers no keys", "ssh-add -X")
    elif everywhere > FEW:
        which = f"{everywhere} of its {count} keys" if rules else f"{count} keys"
        yield warn(
            "keys",
            f"the agent offers {which} to hosts without a rule; servers say "
            '"Too many authentication failures" after a few, and newer ones may refuse the address then',
            "say in config.toml which keys are for which hosts, with [[key]]: see replug.toml(5)",
        )
    elif count:
        ruled = f", {everywhere} of them to hosts without a rule" if everywhere != count else ""
        yield ok("keys", f"the agent offers {count} {'key' if count == 1 else 'keys'}{ruled}")
    elif machine.status is not None:
        tokens = machine.status["tokens"]
        if any(token.get("without_keys") for token in tokens):
            yield warn(
                "keys", "the agent offers no keys", "make one on the token: see the findings on it below"
            )
        else:
            step = "plug a token in, or ssh-add -s MODULE; if one is in, see the findings below"
            yield warn("keys", "the agent offers no keys", step)


def check_ssh_config(machine: Machine) -> Iterator[Finding]:
    """ssh's configuration does not name another agent."""
    ours = [machine.agent.path, *(socket.path for socket in machine.config.sockets)]
    for file in (machine.home / ".ssh" / "config", machine.root / "etc" / "ssh" / "ssh_config"):
        for line in identity_agents(file):
            if any(line.leads_to(socket, machine.environment, machine.home) for socket in ours):
                continue
            if line.value == SYSTEM_SOCKET:  # for users of the service alone
                continue
            what = "uses no agent" if line.value == "none" else f"uses {line.value} instead of SSH_AUTH_SOCK"
            yield warn(
                "ssh-config", f"for {line.hosts}, ssh {what} ({line.place})", "remove that IdentityAgent line"
            )


def check_unit(machine: Machine) -> Iterator[Finding]:
    """systemd starts the agent at the first connection."""
    if machine.is_system_service:
        yield from _check_system_unit()
        return
    manager = UserManager(machine.environment)
    try:
        socket, service = manager.state(SOCKET), manager.state(SERVICE)
    except ManagerError:
        yield ok("unit", "no systemd user manager runs here, so the agent is started by hand")
        return
    if not socket.loaded:
        yield warn("unit", f"{SOCKET} is not installed: nothing starts the agent at login", "replug setup")
    elif service.active_state == "failed" or not (service.active or service.condition):
        found = failure(service)
        said = clauses(*systemd_lines(manager, time.time() - _RECENT)) or "replug logs shows the reason"
        yield fail(
            "unit",
            f"{SERVICE} has failed ({found.reason}); {said}",
            found.fix or f"systemctl --user reset-failed 'replug-agent.*'; systemctl --user restart {SOCKET}",
        )
    elif socket.active_state != "active":
        result = f" ({socket.result})" if socket.result not in ("", "success") else ""
        yield fail(
            "unit",
            f"{SOCKET} is {socket.active_state}{result}: nothing starts the agent",
            f"systemctl --user enable --now {SOCKET}",
        )
    else:
        yield ok("unit", f"{SOCKET} is active, its service is {service.active_state}")


def _check_system_unit() -> Iterator[Finding]:
    manager = SystemManager(os.environ)
    try:
        socket, service = manager.state(system_service.SOCKET), manager.state(system_service.SERVICE)
    except ManagerError as error:
        yield warn("unit", f"the system's units cannot be seen: {error}", "systemctl status replug-ca.socket")
        return
    if service.active_state == "failed":
        yield fail(
            "unit",
            f"{system_service.SERVICE} has failed ({failure(service).reason})",
            f"journalctl -u {system_service.SERVICE} has the reason",
        )
    elif not socket.active:
        yield fail(
            "unit",
            f"{system_service.SOCKET} is {socket.active_state}: nothing starts the agent",
            f"systemctl enable --now {system_service.SOCKET}",
        )
    else:
        yield ok("unit", f"{system_service.SOCKET} is active, its service is {service.active_state}")


def _point_at(machine: Machine) -> str:
    """How to reach a replug-agent by SSH_AUTH_SOCK."""
    own = machine.own_agent.path
    if own and machine.agent.path == own:
        return f"correct what replug logs shows; systemctl --user restart {SOCKET}"
    if own == f"{machine.environment.get('XDG_RUNTIME_DIR')}/{AGENT_SOCKET}":
        return f'export SSH_AUTH_SOCK="$XDG_RUNTIME_DIR/{AGENT_SOCKET}"'
    if own:
        return f"export SSH_AUTH_SOCK={own}"
    return "replug setup for every login, or eval $(replug-agent -s) for this shell"
