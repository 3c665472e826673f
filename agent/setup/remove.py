"""`replug setup --remove`: undoes what is in the record, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from replug.agent.control.places import AGENT_SOCKET
from replug.agent.setup import kept_agent
from replug.agent.setup.record import Record, Replaced, record_path, remove_folders
from replug.agent.setup.rivals import selects, what_it_is
from replug.agent.setup.units import SERVICE, SOCKET
from replug.agent.setup.user_manager import ManagerError, UserManager, units_folder

Step = tuple[str, Callable[[], object]]
"""What it does, in words, and the function that does it."""


def remove(manager: UserManager, record: Record | None, say: Callable[[str], None], *, dry_run: bool) -> int:
    """Undo everything in `record`, announcing each step with `say`; returns the exit status.

    ManagerError and OSError are raised only before the first change.
    """
    if record is None:
        say("replug setup has not changed anything here, so there is nothing to undo.")
        return 0
    steps = list(_steps(manager, record))
    say("replug setup --remove would" if dry_run else "replug setup --remove will")
    for text, _ in steps:
        say(f"  {text}")
    for text in _kept(record):
        say(f"  leave {text}")
    own = list(selects(AGENT_SOCKET))
    if own:
        say("These lines in your own files still select the agent; remove them yourself:")
        for line in own:
            say(f"  {line}")
    if dry_run:
        return 0
    if not _take(steps, record, say):
        return 1
    say("Done.")
    return 0


def undo(manager: UserManager, record: Record, say: Callable[[str], None]) -> bool:
    """Undo everything in `record` of a setup that failed; whether all could be. ManagerError, OSError."""
    steps = list(_steps(manager, record))
    for text, _ in steps:
        say(f"  {text}")
    return _take(steps, record, say)


def _take(steps: list[Step], record: Record, say: Callable[[str], None]) -> bool:
    return take(steps, record, record_path(), say, again="replug setup --remove")


def take(
    steps: Iterable[Step], record: Record, kept_in: Path, say: Callable[[str], None], *, again: str
) -> bool:
    """Take the steps that undo what is in `record`, and remove that file; whether all of them succeeded.

    If one does not, the record stays, for the command `again`.
    """
    reasons = []
    for _, action in steps:
        try:
            action()
        except (ManagerError, OSError) as error:
            reasons.append(str(error))
    if reasons:
        say(f"Some of these steps failed. Fix these errors, and run {again}:")
        for reason in reasons:
            say(f"  {reason}")
        return False
    kept_in.unlink(missing_ok=True)
    remove_folders(record.folders)
    return True


def _steps(manager: UserManager, record: Record) -> Iterator[Step]:
    if manager.state(SOCKET).loaded:
        # The service stops with its socket, and SSH_AUTH_SOCK goes with both.
        yield (
            f"stop and disable {SOCKET}, and with it the agent: its PINs and keys in memory are forgotten",
            partial(manager.end, SOCKET, SERVICE),
        )
    made = [path for path in map(Path, record.files) if record.wrote(path)]
    links = [path for path in made if path.is_symlink()]
    for path in made:
        if path not in links:
            yield f"remove {path}", path.unlink
    if links:
        yield f"remove the {len(links)} links to man pages and completions", partial(_unlink, links)
    if record.kept is not None and kept_agent.is_as_written(record.kept):
        yield (
            f"take the lines about {' and '.join(record.kept.sockets)} out of {record.kept.path}",
            partial(kept_agent.take_out, record.kept),
        )
    yield "make systemd read its unit files again", partial(manager.call, "daemon-reload")
    for one in record.replaced:
        yield f"restore {one.unit}, {what_it_is(one.unit)}", partial(_restore, manager, one)
    before = record.ssh_auth_sock
    if before and os.path.exists(before):  # else it was an earlier login's
        yield f"set SSH_AUTH_SOCK={before}, as before", partial(_set_socket, manager, before)


def _kept(record: Record) -> Iterator[str]:
    for path in map(Path, record.files):
        if os.path.lexists(path) and not record.wrote(path):
            yield f"{path}, which was changed since"
    if record.kept is not None and not kept_agent.is_as_written(record.kept):
        yield f"upstreams in {record.kept.path}, which was changed since"
    for folder in (units_folder() / f"{unit}.d" for unit in (SOCKET, SERVICE)):
        if folder.exists():
            yield f"{folder}, your own settings"


def allow(manager: UserManager, replaced: Replaced) -> None:
    """Undo what an earlier setup did to the unit: it may start again."""
    if replaced.masked:
        manager.call("unmask", replaced.unit)
    elif replaced.enabled:
        manager.call("enable", replaced.unit)


def _restore(manager: UserManager, replaced: Replaced) -> None:
    allow(manager, replaced)
    if replaced.active:
        manager.call("start", replaced.unit)


def _unlink(paths: list[Path]) -> None:
    for path in paths:
        path.unlink()


def _set_socket(manager: UserManager, path: str) -> None:
    if not manager.environment().get("SSH_AUTH_SOCK"):  # a restored agent may have set it itself
        manager.call("set-environment", f"SSH_AUTH_SOCK={path}")
