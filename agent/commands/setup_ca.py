"""`replug setup --ca`: a service of the system that makes certificates for a group of users."""

from __future__ import annotations

import argparse
import copy
import grp
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from replug.agent.ca.authority import of_agent
from replug.agent.config.file import config_path
from replug.agent.control.client import AskError, ask_at, wake
from replug.agent.control.places import SYSTEM_ENVIRONMENT, SYSTEM_SOCKET
from replug.agent.setup import system_plan, system_service, units
from replug.agent.setup.alone import alone
from replug.agent.setup.plan import SetupError
from replug.agent.setup.record import Record, load_record
from replug.agent.setup.system_service import SERVICE, SOCKET
from replug.agent.setup.unit_failure import failure
from replug.agent.setup.user_manager import ManagerError, SystemManager
from replug.token.identity import printable
from replug.token.trusted_file import write_whole

_PATIENCE = 45.0  # seconds for the first answer: longer than systemd waits for the start (TimeoutStartSec=)
_MOST_LINES = 4
_ROOTS_OWN = Path("/run/replug-setup")
"""A folder that no other user opens, and so none keeps root from it."""
_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"


def run(chosen: argparse.Namespace) -> int:
    """Set up or remove; returns the exit status.

    SetupError, ProgramError, RecordError, ManagerError, OSError.
    """
    if os.geteuid() != 0:
        raise SetupError("setup --ca is for the whole system: run it as root")
    manager = SystemManager(os.environ)
    with _alone():
        record = load_record(system_plan.RECORD)
        if not chosen.remove:
            return _set_up(manager, record, chosen)
        if record is None:
            _say("replug setup --ca has not changed anything here, so there is nothing to undo.")
            return 0
        _say("replug setup --ca --remove would" if chosen.dry_run else "replug setup --ca --remove will")
        return system_plan.remove(manager, record, _say, dry_run=chosen.dry_run)


@contextmanager
def _alone() -> Iterator[None]:
    """One at a time; the folder by which others know of it goes with it."""
    _ROOTS_OWN.mkdir(mode=0o700, exist_ok=True)
    with alone(_ROOTS_OWN):
        try:
            yield
        finally:
            with suppress(OSError):
                _ROOTS_OWN.rmdir()


def _set_up(manager: SystemManager, before: Record | None, chosen: argparse.Namespace) -> int:
    group = chosen.group or _group_of_before()
    if not group:
        raise SetupError("for whom? --group GROUP: members of the group may log in with certificates")
    _check_group(group)
    program = units.agent_program()
    system_service.check_only_roots(system_service.parts_of(program))
    os.environ |= SYSTEM_ENVIRONMENT
    _check_configuration()
    record = copy.deepcopy(before) if before is not None else Record()
    planned = system_plan.plan(manager, record, system_service.files(program, group))
    if planned.empty:
        _say("replug setup --ca was done already; there is nothing to change.")
    else:
        _say("replug setup --ca would" if chosen.dry_run else "replug setup --ca will")
        for line in system_plan.described(planned):
            _say(f"  {line}")
    if chosen.dry_run:
        return 0
    started, reasons = time.time(), []
    if not planned.empty:
        try:
            system_plan.apply(manager, record, planned)
        except (ManagerError, OSError) as error:
            reasons = [str(error)]
    reasons = reasons or _no_answer(manager, started)
    if reasons:
        _say("No agent answers:")
        for reason in reasons:
            _say(f"  {printable(reason)}")
        if before is None:
            _say("Undoing the changes:")
            system_plan.remove(manager, record, _say, dry_run=False)
        return 1
    _say("Done: the agent answers." if not planned.empty else "The agent answers.")
    _say_what_is_left(group)
    return 0


def _group_of_before() -> str:
    """The group that an earlier setup was for; empty if there was none."""
    try:
        return grp.getgrgid(os.stat(SYSTEM_SOCKET).st_gid).gr_name
    except (OSError, KeyError):
        return ""


def _check_group(group: str) -> None:
    try:
        grp.getgrnam(group)
    except KeyError:
        raise SetupError(
            f"there is no group {group}: groupadd --system {group}, and then usermod --append --groups"
            f" {group} USER for each who may log in with certificates"
        ) from None


def _check_configuration() -> None:
    """No agent starts with a configuration that is refused, so nothing is changed. SetupError."""
    from replug.agent.config.file import load_config
    from replug.agent.config.model import ConfigError

    try:
        load_config(config_path())
    except ConfigError as error:
        raise SetupError(
            f"{error}\nreplug: nothing was changed; {error.fix or 'correct the file'}"
        ) from error


def _no_answer(manager: SystemManager, since: float) -> list[str]:
    """Ask the agent, which may start it; why it does not answer, in systemd's own words too, or nothing."""
    if wake(SYSTEM_SOCKET, _PATIENCE):
        return []
    service, socket = manager.state(SERVICE), manager.state(SOCKET)
    if not socket.active:
        why = [f"{SOCKET} is {socket.active_state} ({socket.result})"]
    else:
        why = [f"{SERVICE}: {failure(service).reason}"]
    lines = manager.journal(SERVICE, SOCKET, since=since, most=_MOST_LINES)
    return why + [f"systemd: {printable(line)}" for line in lines]


def _say_what_is_left(group: str) -> None:
    """What root still has to do, in this order: a key, the configuration, the PIN, the servers."""
    try:
        status = ask_at(SYSTEM_SOCKET, "status")
        if not any(rule.get("users") for rule in status["certificates"]):
            keys = [key for token in status["tokens"] for key in token["keys"] if not key["certificate"]]
            if not _begin_configuration([key["fingerprint"] for key in keys], group):
                return
            ask_at(SYSTEM_SOCKET, "reload")
            status = ask_at(SYSTEM_SOCKET, "status")
        authorities = of_agent(ask_at(SYSTEM_SOCKET, "ca"))
    except AskError as error:
        _say(str(error))
        return
    for line in _what_keeps_it(status):
        _say(line)
    known = [one for one in authorities if one.blob and "user" in one.types]
    if known:
        _say("Servers trust these CA keys by a file with these lines, which TrustedUserCAKeys in their")
        _say("sshd_config(5) names; replug ca trust prints them again:")
        for authority in known:
            _say(authority.line)


def _begin_configuration(keys: list[str], group: str) -> bool:
    """Write a configuration to begin with, if there is none; whether that was done."""
    path = config_path()
    if not keys:
        _say(f"The agent sees no key yet: make one on a token, and then run {_replug()} setup --ca again.")
        _say(f"If there is one, {_replug()} doctor says why it is not seen.")
        return False
    if path.exists():
        _say(f"No [[certificate]] in {path} has users, so there are no certificates yet: see replug.toml(5).")
        return False
    if len(keys) > 1:
        _say(f"There are {len(keys)} keys: {path} has to say which is the CA key. For the first one:")
        _say(_configuration(keys[0], group))
        return False
    write_whole(path, _configuration(keys[0], group).encode(), 0o644)
    _say(f"Wrote {path}, to begin with: members of the group may log in as root at all hosts in")
    _say(f"{_KNOWN_HOSTS}.")
    return True


def _configuration(key: str, group: str) -> str:
    return f"""\
# What the CA key certifies, and for whom: replug.toml(5). After a change: systemctl reload {SERVICE}

[[ca]]
key = "{key}"
max_validity = "10m"
principals = ["root"]

[[certificate]]
ca = ["{key}"]
hosts = ["*"]    # all whose keys are in {_KNOWN_HOSTS}
principals = ["root"]
users = ["@{group}"]
"""


def _what_keeps_it(status: dict[str, Any]) -> Iterator[str]:
    """What is in the way of the first certificate."""
    wanted = {key for rule in status["certificates"] for key in rule["ca"]}
    for token in status["tokens"]:
        has_ca_key = any(key["fingerprint"] in wanted for key in token["keys"])
        if has_ca_key and not token["pin_remembered"] and not system_service.CREDENTIAL.exists():
            label = printable(token["label"])
            yield f'Give the PIN of token "{label}", now and after each start of the service:'
            yield f"  {_replug()} unlock"


def _replug() -> str:
    path = shutil.which("replug")
    return "sudo replug" if path else f"sudo {Path(sys.argv[0]).absolute()}"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
