"""`replug setup`: starts the agent in every login session; `replug setup --remove` undoes it."""

from __future__ import annotations

import argparse
import copy
import os
import shlex
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

from replug.agent.commands import doctor
from replug.agent.commands.command import Commands
from replug.agent.commands.terminal_style import Style
from replug.agent.control.client import AskError, ask_at, wake
from replug.agent.control.places import AGENT_SOCKET, runtime_folder
from replug.agent.control.release import change_over, what_is_lost
from replug.agent.doctor.finding import Outcome
from replug.agent.setup import documents, kept_agent, rivals, units
from replug.agent.setup.alone import alone
from replug.agent.setup.plan import Plan, PlanError, SetupError, apply, described, plan, roll_back
from replug.agent.setup.profile import login_file, profile_line, profile_lines
from replug.agent.setup.record import KeptAgents, Record, RecordError, load_record, record_path
from replug.agent.setup.remove import remove
from replug.agent.setup.unit_failure import failure, systemd_lines
from replug.agent.setup.units import SERVICE, SOCKET, ProgramError
from replug.agent.setup.user_manager import ManagerError, UserManager
from replug.token.identity import printable

NO_SYSTEMD = 3
"""The exit status if no user manager answers; stdout says what to do instead."""
_PATIENCE = 45.0  # seconds for the first answer: longer than systemd waits for the start (TimeoutStartSec=)


def add_parser(commands: Commands) -> None:
    """Add `setup` to the commands of `replug`."""
    parser = commands.add_parser(
        "setup",
        help="start the agent in every login session (systemd user units); --remove undoes it",
        description="Write user units for systemd (those of a package are used as they are), enable the"
        " socket, set SSH_AUTH_SOCK, and link man pages and completions that pipx or uv installed.",
        epilog="Exit status: 0 done; 1 refused or failed;"
        f" {NO_SYSTEMD} no systemd (prints lines for ~/.profile instead).",
    )
    parser.add_argument("--remove", action="store_true", help="undo everything that setup did")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, without doing it")
    parser.add_argument("--yes", action="store_true", help="replace another agent without asking")
    parser.add_argument(
        "--keep", action="store_true", help="keep another agent behind replug, with its keys, without asking"
    )
    parser.add_argument(
        "--ca",
        action="store_true",
        help="as root: a service of the system instead, whose CA keys make certificates for other users",
    )
    parser.add_argument("--group", metavar="GROUP", help="with --ca: whom the service is for")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Set up or remove; returns the exit status."""
    if chosen.ca:
        from replug.agent.commands import setup_ca

        try:
            return setup_ca.run(chosen)
        except (SetupError, ProgramError, RecordError, ManagerError, OSError) as error:
            return _fail(error)
    if chosen.group:
        return _fail(SetupError("--group is for setup --ca"))
    manager = UserManager(os.environ)
    try:
        environment = manager.environment()
    except ManagerError as error:
        return _without_systemd(error, remove=chosen.remove)
    try:
        with alone(Path(runtime_folder(environment))):
            record = load_record(record_path())
            if chosen.remove:
                return remove(manager, record, _say, dry_run=chosen.dry_run)
            return _set_up(manager, record, environment, chosen)
    except (SetupError, ProgramError, RecordError, ManagerError, OSError) as error:
        return _fail(error)


def _set_up(
    manager: UserManager, before: Record | None, environment: dict[str, str], chosen: argparse.Namespace
) -> int:
    runtime = runtime_folder(environment)
    ours = f"{runtime}/{AGENT_SOCKET}"
    current = environment.get("SSH_AUTH_SOCK", "")
    program, ran = units.agent_program(), manager.state(SERVICE).active
    record = copy.deepcopy(before) if before is not None else Record()
    other = current if current != ours else ""
    planned = plan(manager, record, program, other, runtime)
    keep = _that_can_be_kept(planned, runtime)
    if keep is not None and chosen.keep:
        planned = plan(manager, record, program, other, runtime, keep)
    if planned.empty:
        _say("replug is already set up; there is nothing to change.")
        reasons = _no_answer(manager, ours)
        if reasons:
            _say_why_not(reasons)
            return 1
        _say_what_is_left(manager, ours, program, ran=ran)
        return 0
    _say("replug setup will" if not chosen.dry_run else "replug setup would")
    for line in described(planned):
        _say(f"  {line}")
    if chosen.dry_run:
        return 0
    _check_configuration()
    if planned.replaces and planned.keep is None and _is_kept(keep, yes=chosen.yes):
        planned = plan(manager, record, program, other, runtime, keep)
        _say("replug setup will instead")
        for line in described(planned):
            _say(f"  {line}")
    started = time.time()
    try:
        undo = apply(manager, record, before, planned, ours)
        reasons = _no_answer(manager, ours)
    except PlanError as error:
        undo, reasons = error.undo, [str(error), *systemd_lines(manager, started)]
    if reasons:
        _say_why_not(reasons)
        _say("Undoing the changes:")
        roll_back(manager, record, undo, _say)
        return 1
    _say_done(ours, running=planned.running)
    if planned.links and os.environ.get("SHELL", "").endswith("/zsh"):
        _say("zsh finds the completions by this line in ~/.zshrc, before compinit:")
        _say(f"  {documents.zsh_line()}")
    _say_what_is_left(manager, ours, program, ran=ran)
    return 0


def _check_configuration() -> None:
    """No agent starts with a configuration that is refused, so nothing is changed. SetupError."""
    from replug.agent.config.file import config_path, load_config
    from replug.agent.config.model import ConfigError

    try:
        load_config(config_path())
    except ConfigError as error:
        fix = error.fix or "correct the file"
        raise SetupError(f"{error}\nreplug: nothing was changed; {fix}, then replug setup") from error


def _no_answer(manager: UserManager, ours: str) -> list[str]:
    """Ask the agent, which may start it; why it does not answer, in systemd's own words too, or nothing."""
    started = time.time()
    if wake(ours, _PATIENCE):
        return []
    try:
        service, socket = manager.state(SERVICE), manager.state(SOCKET)
    except ManagerError as error:
        return [str(error)]
    if not socket.active:
        why = [f"{SOCKET} is {socket.active_state} ({socket.result})"]
    else:
        found = failure(service)
        why = [f"{SERVICE}: {found.reason}", *([f"to correct it: {found.fix}"] if found.fix else [])]
    return why + systemd_lines(manager, started)


def _say_why_not(reasons: list[str]) -> None:
    _say("No agent answers:")
    for reason in reasons:
        _say(f"  {printable(reason)}")


def _that_can_be_kept(planned: Plan, runtime: str) -> KeptAgents | None:
    """The agents that would be replaced, if they can be behind replug instead."""
    sockets = kept_agent.that_can_be_kept(planned.other, [one.unit for one in planned.replaced], runtime)
    if not planned.replaces or not sockets:
        return None
    keep = kept_agent.keeping(sockets, runtime)
    return None if kept_agent.names_others(Path(keep.path)) else keep


def _is_kept(keep: KeptAgents | None, *, yes: bool) -> bool:
    """Whether the other agent is kept behind replug, and not replaced; SetupError for neither."""
    if yes:
        return False
    question = "Replace the other agent? `replug setup --remove` brings it back. [y/N] "
    if keep is not None:
        agents, their, them = (
            ("agent", "its", "it") if len(keep.sockets) == 1 else ("agents", "their", "them")
        )
        question = (
            f"Keep the {agents} at {' and '.join(keep.sockets)} behind replug, so that {their} keys are used"
            f" through it (k), or replace {them} (r)? `replug setup --remove` undoes either. [k/r/N] "
        )
    try:
        with open("/dev/tty", "r+b", buffering=0) as terminal:  # stdout may be a file, stdin a script
            terminal.write(printable(question).encode())
            answer = terminal.readline().strip().lower()
    except OSError:
        ways = "with --yes to replace it"
        if keep is not None:
            ways = f"with --keep to have its keys used through replug, or {ways}"
        raise SetupError(f"another agent is in use; run this command {ways}") from None
    if keep is not None and answer in (b"k", b"keep"):
        return True
    if answer not in ((b"y", b"yes") if keep is None else (b"r", b"replace")):
        raise SetupError("nothing was changed")
    return False


def _say_done(ours: str, *, running: bool) -> None:
    if running:
        _say("Done. The agent that runs is still the one from before, until you type")
        _say(f"  {change_over(ours, ours)}")
        with suppress(AskError):
            _say(printable(what_is_lost(ask_at(ours, "status"))))
    else:
        _say("Done: the agent answers.")
    _say("Programs that the session starts from now on use it; in this shell, type")
    _say(f"  export SSH_AUTH_SOCK={shlex.quote(ours)}")


def _say_what_is_left(manager: UserManager, ours: str, program: Path, *, ran: bool) -> None:
    """What the user may still have to do.

    If the agent did not run before (`ran`), it is stopped again: the first client is to start the one that
    stays, with the configuration and the session as they are then.
    """
    home = Path.home()
    if not any(rivals.selects(AGENT_SOCKET)):
        file = login_file(home, os.environ.get("SHELL", ""))
        _say("Logins at the console, by ssh and by su -l get no SSH_AUTH_SOCK from systemd. For those, type")
        _say(f"  echo {shlex.quote(profile_line(ours))} >>~/{file.relative_to(home)}")
    replug = "replug"
    if shutil.which(replug) is None:
        path = program.with_name(replug)
        _say(f"This shell does not find replug by its name; type {path}, or have its folder on PATH:")
        _say(f"  export PATH={shlex.quote(str(path.parent))}:$PATH")
        replug = shlex.quote(str(path))
    elsewhere = list(rivals.leads_elsewhere(ours))
    if elsewhere:
        _say("These lines in your own files make programs use another agent; setup did not change them:")
        for line in elsewhere:
            _say(f"  {line}")
    _say_what_doctor_finds(ours, replug)
    if not ran:
        with suppress(ManagerError):
            manager.call("stop", SERVICE)


_ASKED_ALREADY = frozenset({"unit", "agent", "ssh-config", "config", "keys"})
"""Checks of doctor's that setup has made by itself, or whose findings follow from others."""


def _say_what_doctor_finds(ours: str, replug: str) -> None:
    """Everything between the agent and the token that is not as it should be, and what to install.

    `replug` is what this shell calls it by.
    """
    from replug.agent.doctor.machine import Machine

    environment = dict(os.environ) | {"SSH_AUTH_SOCK": ours}
    found = [
        one
        for one in doctor.examine(Machine(environment, Path.home(), (), root=Path("/")))
        if one.outcome is not Outcome.OK and one.check not in _ASKED_ALREADY
    ]
    if found:
        _say("What replug doctor finds:")
        for one in found:
            for line in doctor.describe(one, Style.of_output()):
                _say(f"  {line}")
    packages = sorted({package for one in found for package in one.packages})
    if packages:
        _say("To install what is missing, type")
        _say(f"  sudo apt-get install {' '.join(packages)} && {replug} reload")


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


def _fail(error: Exception) -> int:
    sys.stderr.write(f"replug: {error}\n")
    return 1


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
