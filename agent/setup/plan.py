"""What `replug setup` is about to change, and the change itself, which can be undone."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from replug.agent.keys.regular_file import contents_of
from replug.agent.setup import documents, kept_agent, remove, rivals, units
from replug.agent.setup.record import (
    KeptAgents,
    Record,
    Replaced,
    digest,
    file_digest,
    link_digest,
    record_path,
    save_record,
    write_file,
    write_link,
)
from replug.agent.setup.units import SERVICE, SOCKET
from replug.agent.setup.user_manager import ManagerError, UserManager, units_folder
from replug.token.trusted_file import make_folder


class SetupError(Exception):
    """Setup refuses, and nothing was changed."""


@dataclass(frozen=True)
class Plan:
    """Everything that is to be done."""

    files: dict[Path, str]
    """The files to write, without those that are up to date."""
    links: dict[Path, Path]
    """The links to make, by path, to manual pages and completions, without those that are there."""
    obsolete: list[Path]
    """Files and links that an earlier setup made, and that are of no use now."""
    replaced: list[Replaced]
    """Units of other agents."""
    other: str
    """SSH_AUTH_SOCK in the user manager, if it is another agent's."""
    behind: frozenset[str]
    """The sockets of the agents that are behind this one."""
    keep: KeptAgents | None
    """Those that are to be put there now."""
    start: bool
    """Whether the socket needs to be enabled and started."""
    running: bool
    """Whether an agent runs that was started by units that will change."""

    @property
    def empty(self) -> bool:
        """Whether nothing is to be done."""
        done = not (self.files or self.links or self.obsolete or self.replaced or self.start)
        return done and self.keep is None

    @property
    def replaces(self) -> bool:
        """Whether another agent is replaced."""
        return bool(self.replaced) or self.other not in ("", *self.behind) or self.autostart

    @property
    def autostart(self) -> bool:
        """Whether GNOME's keyring is kept from starting an agent."""
        return any(path.parent.name == "autostart" for path in self.files)


def plan(
    manager: UserManager,
    record: Record,
    program: Path,
    other: str,
    runtime: str,
    keep: KeptAgents | None = None,
) -> Plan:
    """What is to be done for an agent that is `program`, `other` being SSH_AUTH_SOCK in the manager.

    `runtime` is $XDG_RUNTIME_DIR there. `keep` are other agents that are to be kept, besides those that the
    configuration names.

    Raises SetupError, ProgramError, ManagerError, OSError.
    """
    files = units.unit_files(program, manager.unit_folders())
    shadowing = [path for name in (SERVICE, SOCKET) if (path := units_folder() / name) not in files]
    autostart = rivals.rival_autostart(program)
    if autostart is not None and (record.wrote(autostart[0]) or not os.path.lexists(autostart[0])):
        files |= dict([autostart])
    behind = frozenset([*kept_agent.sockets_behind(), *(keep.sockets if keep else ())])
    kept_there = [socket for socket in behind if socket.startswith(f"{runtime}/")]
    found = rivals.rival_units(manager, [other, os.environ.get("SSH_AUTH_SOCK", ""), *kept_there])
    # Those of an older replug are masked or disabled; they get what others get.
    older = [one for one in record.replaced if one.masked or one.enabled]
    kept = {one.unit for one in found if kept_agent.socket_of(one.unit, runtime) in behind}
    held_back = {
        one.unit: units.held_back(one.unit, program)
        for one in (*found, *record.replaced)
        if one.unit not in kept
    }
    files |= dict(held_back.values()) | dict(units.started_before(unit) for unit in kept)
    links = {path: target for path, target in documents.wanted_links().items() if _ours(record, path)}
    made = (path for path in map(Path, record.files) if record.wrote(path))
    obsolete = [path for path in made if path not in files and path not in links]
    links = {path: target for path, target in links.items() if file_digest(path) != link_digest(str(target))}
    files = {path: text for path, text in files.items() if not _holds(path, text)}
    for path in (*files, *shadowing):
        if os.path.lexists(path) and not record.wrote(path):
            whose = "was changed since" if str(path) in record.files else "is not replug's"
            raise SetupError(
                f"{path} {whose} and was not touched; move it away"
                f" (put your own settings in a drop-in: systemctl --user edit {SERVICE})"
            )
    socket, service = manager.state(SOCKET), manager.state(SERVICE)
    unfinished = bool(record.overwritten)  # systemd may not have read the units yet
    changed = unfinished or any(path.parent == units_folder() for path in (*files, *obsolete))
    return Plan(
        files,
        links,
        obsolete,
        [one for one in found if one.unit not in kept and (one.active or held_back[one.unit][0] in files)]
        + [one for one in older if one.unit not in kept],
        other,
        behind,
        keep,
        start=not (socket.active and socket.enabled) or bool(other) or unfinished,
        running=service.active and changed,
    )


def _ours(record: Record, path: Path) -> bool:
    """Whether `path` is ours to make a link; pipx makes those to manual pages itself."""
    return record.wrote(path) or not os.path.lexists(path)


def _holds(path: Path, text: str) -> bool:
    return file_digest(path) == digest(text.encode())


def described(plan: Plan) -> Iterator[str]:
    """The plan in words, a line for each step."""
    for path in plan.files:
        yield f"write {path}"
    for path in plan.obsolete:
        yield f"remove {path}, which an earlier replug setup made"
    if plan.links:
        yield f"link the man pages and completions where man and shells find them ({len(plan.links)} links)"
    if plan.keep is not None:
        file = plan.keep.path
        for socket in plan.keep.sockets:
            yield f"keep the agent at {socket}: its keys are used through replug (upstreams in {file})"
    for one in plan.replaced:
        yield f"stop and disable {one.unit}, {rivals.what_it_is(one.unit)}, while replug is installed"
    if plan.autostart:
        yield "which keeps gnome-keyring from starting its ssh agent at login"
    if plan.start:
        instead = f" in place of {plan.other}" if plan.other else ""
        yield f"enable and start {SOCKET}, which sets SSH_AUTH_SOCK in the user manager{instead}"


@dataclass(frozen=True)
class Undo:
    """How everything was before."""

    record: Record | None
    contents: dict[Path, bytes | str]
    """Of the files that were overwritten or removed; of links what they lead to."""


def apply(manager: UserManager, record: Record, before: Record | None, plan: Plan, ours: str) -> Undo:
    """Do what is planned, so that the agent listens at `ours`; how to undo it.

    `before` is the record as it was read. Raises PlanError with the way back.
    """
    undo = Undo(
        copy.deepcopy(before),
        {
            path: os.readlink(path) if path.is_symlink() else contents_of(path)
            for path in (*plan.files, *plan.links, *plan.obsolete)
            if os.path.lexists(path)
        },
    )
    try:
        _apply(manager, record, plan)
        # The socket does this when it starts, but it may be running, and another agent may have changed it.
        manager.call("set-environment", f"SSH_AUTH_SOCK={ours}")
    except (ManagerError, OSError) as error:
        raise PlanError(str(error), undo) from error
    return undo


class PlanError(Exception):
    """A step failed."""

    def __init__(self, reason: str, undo: Undo) -> None:
        super().__init__(reason)
        self.undo = undo


def _apply(manager: UserManager, record: Record, plan: Plan) -> None:
    # The record comes first, so that an interrupted setup can be undone.
    where, wants = record_path(), units_folder() / "sockets.target.wants"
    record.plan_folders(where)
    for path, text in plan.files.items():
        record.plan_write(path, text)
    for path, target in plan.links.items():
        record.plan_link(path, target)
    record.plan_folders(wants / SOCKET)
    active = {one.unit for one in record.replaced if one.active}
    for one in plan.replaced:
        record.replaced = [other for other in record.replaced if other.unit != one.unit]
        record.replaced.append(Replaced(one.unit, active=one.active or one.unit in active))
    record.ssh_auth_sock = record.ssh_auth_sock or plan.other
    if plan.keep is not None:
        record.plan_folders(Path(plan.keep.path))
        record.kept = plan.keep
    save_record(record, where)
    for path, text in plan.files.items():
        write_file(path, text)
    if plan.keep is not None:
        kept_agent.write(plan.keep)
        if manager.state(SERVICE).active:
            manager.call("reload", SERVICE)
    for path, target in plan.links.items():
        write_link(path, str(target))
    for path in plan.obsolete:
        path.unlink()
        del record.files[str(path)]
    make_folder(wants)  # as systemctl would, with another mode
    for one in plan.replaced:
        remove.allow(manager, one)
        if one.active:
            manager.call("stop", one.unit)
    manager.call("daemon-reload")
    manager.call("enable", "--now", SOCKET)
    record.overwritten.clear()
    save_record(record, where)


def roll_back(manager: UserManager, record: Record, undo: Undo, say: Callable[[str], None]) -> None:
    """Make everything as it was before; `say` tells the user what is done. Raises ManagerError, OSError."""
    if undo.record is None:
        if remove.undo(manager, record, say):
            say("Everything is as it was before.")
        return
    say("  bring back the units that were there before")
    if record.kept is not None and undo.record.kept is None and kept_agent.is_as_written(record.kept):
        kept_agent.take_out(record.kept)
    for path in map(Path, record.files):
        if path not in undo.contents and str(path) not in undo.record.files:
            path.unlink(missing_ok=True)
    for path, content in undo.contents.items():
        if isinstance(content, str):
            write_link(path, content)
        else:
            write_file(path, content.decode())
    save_record(undo.record, record_path())
    manager.call("daemon-reload")
    before = [one.unit for one in undo.record.replaced]
    for one in record.replaced:
        if one.unit not in before and one.active:
            manager.call("start", one.unit)
    say("Everything is as it was before.")
