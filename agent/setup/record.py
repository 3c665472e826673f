"""The record of what `replug setup` changed, so that exactly that can be undone."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from replug.agent.keys.regular_file import NoPlainFileError, contents_of
from replug.token.trusted_file import make_folder, write_whole

_VERSION = 1


class RecordError(Exception):
    """The record cannot be read; the text names the file."""


@dataclass(frozen=True)
class Replaced:
    """A unit of another agent, and its state before."""

    unit: str
    masked: bool = False
    """Whether it was masked, as replug 0.1.0 did."""
    enabled: bool = False
    """Whether it was disabled, as replug 0.1.0 did, if it was not masked."""
    active: bool = False


@dataclass(frozen=True)
class KeptAgents:
    """Other agents that were put behind replug."""

    sockets: list[str]
    path: str
    """The configuration file."""
    lines: str
    """What was written at its beginning."""
    made: bool
    """Whether there was no such file."""


@dataclass
class Record:
    """Everything to undo."""

    files: dict[str, str] = field(default_factory=dict)
    """The digest of each file and link as it was made, by path (`file_digest`)."""
    folders: list[str] = field(default_factory=list)
    """Folders that were created, outer ones first."""
    replaced: list[Replaced] = field(default_factory=list)
    ssh_auth_sock: str = ""
    """SSH_AUTH_SOCK in the user manager before."""
    kept: KeptAgents | None = None
    overwritten: dict[str, str] = field(default_factory=dict)
    """The digests of files and links of ours that a setup which has not ended replaces, by path.

    Killed half-way, it leaves some as they were and some as they were to be.
    """

    def wrote(self, path: Path) -> bool:
        """Whether we wrote `path` and it has not changed since."""
        ours = {known[str(path)] for known in (self.files, self.overwritten) if str(path) in known}
        return bool(ours) and file_digest(path) in ours

    def plan_write(self, path: Path, text: str) -> None:
        """Record that `path` will be written, and the folders that will be created for it."""
        self._plan(path, digest(text.encode()))

    def plan_link(self, path: Path, target: Path) -> None:
        """Record that `path` will be a link to `target`, and the folders that will be created for it."""
        self._plan(path, link_digest(str(target)))

    def _plan(self, path: Path, made: str) -> None:
        if self.wrote(path):
            self.overwritten[str(path)] = file_digest(path)
        self.files[str(path)] = made
        self.plan_folders(path)

    def plan_folders(self, path: Path) -> None:
        """Record the folders that will be created for `path`."""
        missing = [str(folder) for folder in path.parents if not folder.exists()]
        self.folders += [folder for folder in reversed(missing) if folder not in self.folders]


def record_path() -> Path:
    """The path of the record."""
    import platformdirs

    return platformdirs.user_state_path("replug") / "setup.json"


def load_record(path: Path) -> Record | None:
    """The record, or None if there is none; RecordError."""
    try:
        values = json.loads(contents_of(path))
        if values.pop("version") != _VERSION:
            raise ValueError("another version of replug wrote it")
        values["replaced"] = [Replaced(**one) for one in values["replaced"]]
        if values.get("kept") is not None:
            values["kept"] = KeptAgents(**values["kept"])
        return Record(**values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RecordError(f"{path} cannot be used, so what setup did is unknown: {error}") from error


def save_record(record: Record, path: Path) -> None:
    """Write the record to `path`, atomically. Raises OSError."""
    values = asdict(record)
    if not record.overwritten:
        del values["overwritten"]  # which replug 0.1.0 did not know
    write_file(path, json.dumps({"version": _VERSION} | values, indent=2) + "\n")


def write_file(path: Path, text: str) -> None:
    """Write `path` atomically, creating its folders, for the user alone to change. Raises OSError."""
    make_folder(path.parent)
    # Not writable for a group, whatever the umask.
    write_whole(path, text.encode(), 0o644)


def write_link(path: Path, target: str) -> None:
    """Make `path` a link to `target`, creating its folders. Raises OSError."""
    make_folder(path.parent)
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.unlink(missing_ok=True)
    unfinished.symlink_to(target)
    unfinished.replace(path)


def remove_folders(folders: Iterable[str]) -> None:
    """Remove those of the folders that are empty, inner ones first."""
    for folder in sorted(folders, key=len, reverse=True):
        with suppress(OSError):
            os.rmdir(folder)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, or what a symbolic link is; "" if there is nothing. Raises OSError.

    What is no file that setup may have made has something that no digest is.
    """
    if path.is_symlink():
        return link_digest(os.readlink(path))
    try:
        return digest(contents_of(path))
    except FileNotFoundError:
        return ""
    except NoPlainFileError as error:
        return str(error)


def link_digest(target: str) -> str:
    """What stands for a symbolic link in the place of a digest."""
    return f"-> {target}"


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
