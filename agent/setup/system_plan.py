"""Carries out `replug setup --ca`, and undoes it: what was written is on record, and only that is removed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from replug.agent.control.places import SYSTEM_ENVIRONMENT, SYSTEM_SOCKET
from replug.agent.setup.plan import SetupError
from replug.agent.setup.record import Record, digest, file_digest, remove_folders, save_record
from replug.agent.setup.remove import Step, take
from replug.agent.setup.system_service import SERVICE, SOCKET, SYSUSERS, TMPFILES, USER
from replug.agent.setup.user_manager import ManagerError, SystemManager
from replug.token.trusted_file import write_whole

RECORD = Path("/var/lib/replug/setup-ca.json")
"""Root's own: what the service may write to says nothing about what root removes."""
_CONFIGURATION = Path(SYSTEM_ENVIRONMENT["XDG_CONFIG_HOME"], "replug")
_PATIENCE = 60.0  # seconds


@dataclass(frozen=True)
class SystemPlan:
    """Everything that is to be done."""

    files: dict[Path, str]
    """The files to write, without those that are up to date."""
    obsolete: list[Path]
    """Files that an earlier setup wrote, and that are of no use now."""
    start: bool
    """Whether the socket needs to be enabled and started."""

    @property
    def empty(self) -> bool:
        """Whether nothing is to be done."""
        return not (self.files or self.obsolete or self.start)


def plan(manager: SystemManager, record: Record, wanted: dict[Path, str]) -> SystemPlan:
    """What is to be done for the `wanted` files; SetupError, ManagerError, OSError."""
    files = {path: text for path, text in wanted.items() if file_digest(path) != digest(text.encode())}
    for path in files:
        if os.path.lexists(path) and not record.wrote(path):
            whose = "was changed since" if str(path) in record.files else "is not replug's"
            raise SetupError(
                f"{path} {whose} and was not touched; move it away"
                f" (put your own settings in a drop-in: systemctl edit {SERVICE})"
            )
    obsolete = [path for path in map(Path, record.files) if record.wrote(path) and path not in wanted]
    socket = manager.state(SOCKET)
    unfinished = bool(record.overwritten)  # systemd may not have read the units yet
    return SystemPlan(files, obsolete, start=not (socket.active and socket.enabled) or unfinished)


def described(plan: SystemPlan) -> Iterator[str]:
    """The plan in words, a line for each step."""
    for path in plan.files:
        yield f"write {path}"
    for path in plan.obsolete:
        yield f"remove {path}, which an earlier replug setup --ca wrote"
    yield f"make the user {USER}, and the folder of the socket"
    yield f"enable {SOCKET}, and start it again: PINs that the service remembers are forgotten"


def apply(manager: SystemManager, record: Record, plan: SystemPlan) -> None:
    """Do what is planned. ManagerError, OSError."""
    # The record comes first, so that an interrupted setup can be undone.
    for path, text in plan.files.items():
        record.plan_write(path, text)
    record.plan_folders(_CONFIGURATION / "config.toml")
    record.plan_folders(RECORD)
    _make_folder(RECORD.parent)
    save_record(record, RECORD)
    _make_folder(_CONFIGURATION)
    for path, text in plan.files.items():
        _make_folder(path.parent)
        write_whole(path, text.encode(), 0o644)
    for path in plan.obsolete:
        path.unlink()
        del record.files[str(path)]
    _run("systemd-sysusers", str(SYSUSERS))
    _run("systemd-tmpfiles", "--create", str(TMPFILES))
    manager.call("daemon-reload")
    manager.call("enable", SOCKET)
    manager.call("stop", SOCKET, SERVICE)
    manager.call("start", SOCKET)
    record.overwritten.clear()
    save_record(record, RECORD)


def remove(manager: SystemManager, record: Record, say: Callable[[str], None], *, dry_run: bool) -> int:
    """Undo everything in `record`, announcing each step with `say`; returns the exit status."""
    steps = list(_steps(manager, record))
    for text, _ in steps:
        say(f"  {text}")
    for path in map(Path, record.files):
        if os.path.lexists(path) and not record.wrote(path):
            say(f"  leave {path}, which was changed since")
    say(f"  leave {_CONFIGURATION}, {SYSTEM_ENVIRONMENT['XDG_STATE_HOME']} and the user {USER}")
    if dry_run:
        return 0
    return 0 if take(steps, record, RECORD, say, again="replug setup --ca --remove") else 1


def _steps(manager: SystemManager, record: Record) -> Iterator[Step]:
    if manager.state(SOCKET).loaded:
        yield (
            f"stop and disable {SOCKET}, and with it the agent: PINs and certificates are forgotten",
            partial(manager.end, SOCKET, SERVICE),
        )
    if record.wrote(TMPFILES):
        yield "remove the folder of the socket", partial(remove_folders, [str(Path(SYSTEM_SOCKET).parent)])
    for path in (path for path in map(Path, record.files) if record.wrote(path)):
        yield f"remove {path}", path.unlink
    yield "make systemd read its unit files again", partial(manager.call, "daemon-reload")


def _make_folder(folder: Path) -> None:
    """For everybody to read, whatever the umask: sshd, systemd and the users of ssh read what is in it."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir()
        one.chmod(0o755)


def _run(*command: str) -> None:
    """Run a program of systemd's; ManagerError with its words if it fails."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            encoding="utf-8", errors="replace", timeout=_PATIENCE,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ManagerError(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        raise ManagerError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
