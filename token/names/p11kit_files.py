"""p11-kit's configuration files (pkcs11.conf(5)), read as p11-kit/conf.c does."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_LARGEST = 64 * 1024  # bytes of a file
_BLANK = " \t\r\n\v\f"  # isspace() of C
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\.module", re.ASCII)

Fields = dict[str, str]


class FileError(Exception):
    """A file that p11-kit could not read either; the text names it."""


@dataclass(frozen=True)
class P11KitFiles:
    """Where the files are, as distributions build p11-kit."""

    system: Path
    """The folder of the machine's `pkcs11.conf` and `modules`."""
    packages: Path
    """The folder of the module files that packages install."""
    user: Path | None
    """The folder of the user's `pkcs11.conf` and `modules`; None if p11-kit would not read it."""

    @classmethod
    def of(cls, environment: Mapping[str, str], user_id: int, root: Path = Path("/")) -> P11KitFiles:
        """Those of a program of this user; root's own are never read, nor any with P11_KIT_NO_USER_CONFIG."""
        user = None
        if user_id != 0 and "P11_KIT_NO_USER_CONFIG" not in environment:
            home = Path(environment.get("HOME") or Path.home())
            user = Path(environment.get("XDG_CONFIG_HOME") or home / ".config", "pkcs11")
        return cls(root / "etc/pkcs11", root / "usr/share/p11-kit/modules", user)


@dataclass
class ModuleFile:
    """The fields of a module: the user's before the machine's before the package's."""

    name: str
    """The file's name without `.module`."""
    file: str
    """The first file of that name."""
    fields: Fields = field(default_factory=dict)
    error: str = ""
    of_user: frozenset[str] = frozenset()
    """The names of the fields that are from the user's own file."""


def read_files(files: P11KitFiles) -> list[ModuleFile]:
    """The module files that count for this user. FileError if a `pkcs11.conf` cannot be read."""
    mode = _user_mode(files)
    found: dict[str, ModuleFile] = {}
    if mode != "none" and files.user is not None:
        _collect(files.user / "modules", found, of_user=True)
    if mode != "only":
        _collect(files.system / "modules", found)
        _collect(files.packages, found)
    return list(found.values())


def _user_mode(files: P11KitFiles) -> str:
    """`user-config` of the machine's file, or of the user's, which may also switch itself off."""
    mode = _mode_in(files.system / "pkcs11.conf", "merge")
    if mode == "none" or files.user is None:
        return "none"
    return _mode_in(files.user / "pkcs11.conf", mode, of_user=True)


def _mode_in(path: Path, otherwise: str, *, of_user: bool = False) -> str:
    mode = _read_fields(path, of_user=of_user).get("user-config", otherwise)
    if mode not in ("none", "merge", "only", "override"):
        raise FileError(f"{path}: user-config is {mode!r}, not none, merge or only")
    return "only" if mode == "override" else mode


def _collect(folder: Path, found: dict[str, ModuleFile], *, of_user: bool = False) -> None:
    """Add the module files of a folder; of a module that was found before, only what is not said yet."""
    for path in _files_in(folder):
        # p11-kit reads a file with an invalid name, too, as a module of that name.
        name = path.name.removesuffix(".module") if _FILE_NAME.fullmatch(path.name) else path.name
        module = found.setdefault(name, ModuleFile(name, str(path)))
        try:
            fields = _read_fields(path, of_user=of_user)
        except FileError as error:
            module.error = module.error or str(error)
            continue
        if of_user:
            module.of_user |= fields.keys()
        module.fields = fields | module.fields


def _files_in(folder: Path) -> Iterator[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return
    for path in paths:
        try:
            if stat.S_ISREG(path.stat().st_mode):
                yield path
        except OSError:
            continue


def _read_fields(path: Path, *, of_user: bool = False) -> Fields:
    """The fields of a file (common/lexer.c); none if there is no such file. FileError."""
    try:
        # Without O_NONBLOCK, opening a FIFO waits for its writer.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise FileError(f"{path} is not a regular file")
            text = file.read(_LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        if of_user and isinstance(error, PermissionError):
            return {}
        raise FileError(f"{path}: {error.strerror}") from error
    if len(text) > _LARGEST:
        raise FileError(f"{path} is longer than {_LARGEST} bytes")
    fields: Fields = {}
    for number, raw in enumerate(text.decode(errors="surrogateescape").split("\n"), 1):
        line = raw.strip(_BLANK)
        if not line or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon or line.startswith(("[", "-----BEGIN ")):
            raise FileError(f"{path}:{number}: not a line NAME: VALUE")
        fields[name.rstrip(_BLANK)] = value.lstrip(_BLANK)
    return fields
