"""`replug setup`: starts the agent in every login session; `replug setup --remove` undoes it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from replug.agent.control.client import AskError, ask_at, wake
from replug.agent.setup import rivals, units
from replug.agent.setup.profile import profile_lines
from replug.agent.setup.record import (
    Record,
    RecordError,
    Replaced,
    digest,
    file_digest,
    load_record,
    record_path,
    save_record,
    write_file,
)
from replug.agent.setup.remove import remove
from replug.agent.setup.units import AGENT_SOCKET, SERVICE, SOCKET, ProgramError
from replug.agent.setup.user_manager import ManagerError, UserManager, units_folder
from replug.token.identity import printable

NO_SYSTEMD = 3
"""The exit status if no user manager answers; stdout says what to do instead."""


class SetupError(Exception):
    """Setup refuses, and nothing was changed."""


@dataclass(frozen=True)
class _Plan:
    files: dict[Path, str]
    """The files to write, without those that are up to date."""
    replaced: list[Replaced]
    other: str
    """SSH_AUTH_SOCK in the user manager, if it is another agent's."""
    start: bool
    """Whether the socket needs to be enabled and started."""
    running: bool
    """Whether units that will change are in use."""

    @property
    def empty(self) -> bool:
        return not (self.files or self.replaced or self.start)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `setup` to the commands of `replug`."""
    parser = commands.add_parser(
        "setup",
        help="start the agent in every login session (systemd user units); --remove undoes it",
        description="Write user units for systemd, enable the socket, and set SSH_AUTH_SOCK.",
        epilog="Exit status: 0 done; 1 refused or failed;"
        f" {NO_SYSTEMD} no systemd (prints lines for ~/.profile instead).",
    )
    parser.add_argument("--remove", action="store_true", help="undo everything that setup did")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, without doing it")
    parser.add_argument("--yes", action="store_true", help="replace another agent without asking")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Set up or remove; returns the exit status."""
    manager = UserManager(os.environ)
    try:
        environment = manager.environment()
    except ManagerError as error:
        return _without_systemd(error, remove=chosen.remove)
    try:
        record = load_record(record_path())
        if chosen.remove:
            return remove(manager, record, _say, dry_run=chosen.dry_run)
        return _set_up(manager, record or Record(), environment, chosen)
    except (SetupError, ProgramError, RecordError, ManagerError, OSError) as error:
        return _fail(error)


def _set_up(
    manager: UserManager, record: Record, environment: dict[str, str], chosen: argparse.Namespace
) -> int:
    ours = f"{_runtime_folder(environment)}/{AGENT_SOCKET}"
    before = environment.get("SSH_AUTH_SOCK", "")
    plan = _plan(manager, record, before if before != ours else "")
    if plan.empty:
        _say("replug is already set up; there is nothing to change.")
        _say_what_leads_elsewhere(ours)
        _say_what_has_no_keys(manager, ours)
        return 0
    _say("replug setup will" if not chosen.dry_run else "replug setup would")
    for line in _described(plan):
        _say(f"  {line}")
    if chosen.dry_run:
        return 0
    if plan.replaced or plan.other or _autostart(plan):
        _confirm(yes=chosen.yes)
    record.ssh_auth_sock = record.ssh_auth_sock or plan.other
    try:
        _apply(manager, record, plan, ours)
    except (ManagerError, OSError) as error:
        _say(f"Setup failed: {error}")
        _say("Undoing the changes:")
        remove(manager, record, _say, dry_run=False)
        return 1
    _say_done(ours, plan)
    _say_what_leads_elsewhere(ours)
    _say_what_has_no_keys(manager, ours)
    return 0


def _plan(manager: UserManager, record: Record, other: str) -> _Plan:
    files = units.unit_files(units.agent_program())
    autostart = rivals.rival_autostart()
    if autostart is not None:
        files[autostart] = rivals.KEYRING_OFF
    files = {path: text for path, text in files.items() if not _holds(path, text)}
    for path in files:
        if os.path.lexists(path) and not record.wrote(path):
            whose = "was changed since" if str(path) in record.files else "is not replug's"
            raise SetupError(
                f"{path} {whose} and was not touched; move it away"
                f" (put your own settings in a drop-in: systemctl --user edit {SERVICE})"
            )
    socket = manager.state(SOCKET)
    return _Plan(
        files,
        rivals.rival_units(manager, [other, os.environ.get("SSH_AUTH_SOCK", "")]),
        other,
        start=not (socket.active and socket.enabled) or bool(other),
        running=socket.active and any(path.parent == units_folder() for path in files),
    )


def _holds(path: Path, text: str) -> bool:
    return file_digest(path) == digest(text.encode())


def _described(plan: _Plan) -> Iterator[str]:
    for path in plan.files:
        yield f"write {path}"
    for one in plan.replaced:
        how = "mask" if one.masked else "disable"
        yield f"stop and {how} {one.unit}, {rivals.what_it_is(one.unit)}"
    if _autostart(plan):
        yield "which keeps gnome-keyring from starting its ssh agent at login"
    if plan.start:
        instead = f" in place of {plan.other}" if plan.other else ""
        yield f"enable and start {SOCKET}, which sets SSH_AUTH_SOCK in the user manager{instead}"


def _autostart(plan: _Plan) -> bool:
    return any(path.parent.name == "autostart" for path in plan.files)


def _confirm(*, yes: bool) -> None:
    if yes:
        return
    try:
        with open("/dev/tty", "r+b", buffering=0) as terminal:  # stdout may be a file, stdin a script
            terminal.write(b"Replace the other agent? `replug setup --remove` brings it back. [y/N] ")
            answer = terminal.readline()
    except OSError:
        raise SetupError("another agent is in use; to replace it, run this command with --yes") from None
    if answer.strip().lower() not in (b"y", b"yes"):
        raise SetupError("nothing was changed")


def _apply(manager: UserManager, record: Record, plan: _Plan, ours: str) -> None:
    # The record comes first, so that an interrupted setup can be undone.
    where = record_path()
    record.plan_folders(where)
    for path, text in plan.files.items():
        record.plan_write(path, text)
    replaced = [one.unit for one in plan.replaced]
    record.replaced = [one for one in record.replaced if one.unit not in replaced] + plan.replaced
    save_record(record, where)
    for path, text in plan.files.items():
        write_file(path, text)
    for one in plan.replaced:
        manager.call("mask" if one.masked else "disable", "--now", one.unit)
    manager.call("daemon-reload")
    manager.call("enable", "--now", SOCKET)
    # The socket does this when it starts, but it may be running, and another agent may have changed it since.
    manager.call("set-environment", f"SSH_AUTH_SOCK={ours}")


def _say_done(ours: str, plan: _Plan) -> None:
    _say("Done. Programs that the session starts from now on use the agent; in this shell, type")
    _say(f"  export SSH_AUTH_SOCK={ours}")
    if plan.running:
        _say("The running agent is not replaced, and keeps its keys and PINs, until you type")
        _say(f"  systemctl --user restart {SOCKET} {SERVICE}")
    _say("Console and ssh logins do not get SSH_AUTH_SOCK from systemd. For those, add to ~/.profile:")
    _say(f'  [ -S "${{SSH_AUTH_SOCK-}}" ] || export SSH_AUTH_SOCK={ours}')


def _say_what_leads_elsewhere(ours: str) -> None:
    found = list(rivals.leads_elsewhere(ours))
    if found:
        _say("These lines in your own files make programs use another agent; setup did not change them:")
        for line in found:
            _say(f"  {line}")


def _say_what_has_no_keys(manager: UserManager, ours: str) -> None:
    """Tell the owner of a new token what is missing. It is no failure if the agent cannot be asked.

    An agent that did not run is started for this and stopped again: the first client is to start the one that
    stays, with the configuration and the session as they are then.
    """
    tokens = []
    with suppress(AskError, ManagerError):
        runs = manager.state(SERVICE).active
        if wake(ours):
            tokens = ask_at(ours, "status")["tokens"]
        if not runs:
            manager.call("stop", SERVICE)
    for token in tokens:
        if token.get("without_keys"):
            name = token["label"] or token["model"]
            _say(printable(f'Token "{name}" is plugged in, but {token["without_keys"]}.'))
            if token["first_key"]:
                _say("To make one, type")
                for command in filter(None, (token["first_key"], token.get("first_key_then"))):
                    _say(printable(f"  {command}"))


def _without_systemd(error: ManagerError, *, remove: bool) -> int:
    _say(f"No systemd user manager answers here: {error}")
    if remove:
        _say("Nothing was changed. Run this command again in a login session that has one.")
        return NO_SYSTEMD
    try:
        program = units.agent_program()
    except ProgramError as missing:
        return _fail(missing)
    _say("Nothing was changed. These lines at the end of ~/.profile start the agent at login instead:")
    _say("")
    _say(profile_lines(program))
    return NO_SYSTEMD


def _runtime_folder(environment: dict[str, str]) -> str:
    return environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"


def _fail(error: Exception) -> int:
    sys.stderr.write(f"replug: {error}\n")
    return 1


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
