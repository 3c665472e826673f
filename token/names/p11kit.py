"""The modules that p11-kit has registered on this machine, by p11-kit's own rules (pkcs11.conf(5)).

Each is then loaded by itself: p11-kit's proxy has all of them in one process, where the crash of one ends the
others. The rules are those of p11-kit/modules.c.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from replug.token.names.load_arguments import CLIENT, PLAIN, LoadArguments
from replug.token.names.p11kit_files import FileError, ModuleFile, P11KitFiles, read_files

PROGRAM = "replug-agent"
"""Our name for `enable-in` and `disable-in`."""
_TRUST = "p11-kit-trust.so"
_PROXY = "p11-kit-proxy.so"
_MODULE_FOLDERS = (
    f"/usr/lib/{getattr(sys.implementation, '_multiarch', 'lib')}/pkcs11",
    "/usr/lib64/pkcs11",
    "/usr/lib/pkcs11",
    "/usr/lib/*-linux-gnu*/pkcs11",
    "/usr/local/lib/pkcs11",
)
"""Where p11-kit may have been built to look for a module with a relative path."""
_SERVERS = ("unix:path=/", "vsock:")


@dataclass(frozen=True)
class ModuleSource:
    """A module and how it is loaded. The same path with other arguments is another module."""

    path: str
    """Canonical."""
    arguments: LoadArguments = PLAIN

    @property
    def is_remote(self) -> bool:
        """Whether its tokens are those of a server that its registration names."""
        return bool(self.arguments.server_address)


@dataclass(frozen=True)
class Registered:
    """A module that p11-kit would load for us."""

    name: str
    """Its file's name without `.module`."""
    file: str
    source: ModuleSource
    critical: bool


class Why(Enum):
    """The kind of reason for which a registered module is left out."""

    NO_KEYS = "it has no keys for ssh"
    DISABLED = "its registration says so"
    PROBLEM = "something is wrong"


@dataclass(frozen=True)
class LeftOut:
    """A registered module that is not loaded."""

    name: str
    why: Why
    reason: str
    next_step: str = ""
    critical: bool = False


@dataclass(frozen=True)
class Registry:
    """Everything that is registered; the modules by priority, then by name."""

    modules: tuple[Registered, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing is registered that might have keys."""
        return not self.modules and all(one.why is Why.NO_KEYS for one in self.left_out)

    def source_of(self, path: str) -> ModuleSource:
        """How to load the module at `path` (canonical): as it is registered, if it is."""
        here = (one.source for one in self.modules if not one.source.is_remote)
        return next((source for source in here if source.path == path), ModuleSource(path))


def read_registry(files: P11KitFiles) -> Registry:
    """Read p11-kit's configuration. What cannot be read is left out, with the reason."""
    try:
        found = read_files(files)
    except FileError as error:
        return Registry((), (LeftOut("pkcs11.conf", Why.PROBLEM, str(error), "correct or remove that file"),))
    found.sort(key=lambda module: (-_priority(module), module.name))
    judged = [_judged(module) for module in found]
    modules: dict[ModuleSource | str, Registered] = {}
    for one in judged:
        if isinstance(one, Registered):
            # Of two files for one local module the first counts, whatever their other fields say.
            modules.setdefault(one.source if one.source.is_remote else one.source.path, one)
    return Registry(tuple(modules.values()), tuple(one for one in judged if isinstance(one, LeftOut)))


def _priority(module: ModuleFile) -> int:
    number = re.match(r"\s*[+-]?\d+", module.fields.get("priority", ""))
    return int(number[0]) if number else 0


def _judged(module: ModuleFile) -> Registered | LeftOut:
    """Whether it is for us to load, and how."""
    if module.error:
        return _problem(module, module.error, "correct or remove that file")
    path, fields, file = module.fields.get("module", ""), module.fields, module.file
    if fields.get("trust-policy") == "yes" or os.path.basename(path) == _TRUST:
        return LeftOut(module.name, Why.NO_KEYS, f"{file}: authorities to trust, and no keys")
    if os.path.basename(path) == _PROXY:
        return LeftOut(module.name, Why.NO_KEYS, f"{file}: p11-kit's proxy only repeats the others")
    if not _is_enabled(fields):
        field = "enable-in" if "enable-in" in fields else "disable-in"
        return LeftOut(module.name, Why.DISABLED, f"{file}: its {field} leaves out {PROGRAM}")
    if "remote" in fields:
        return _remote(module, fields["remote"])
    if not path:
        return LeftOut(module.name, Why.DISABLED, f"{file} names no module")
    installed = _installed(path)
    if installed is None:
        return _problem(module, f"{file}: {path} is not installed", "install that module, or remove the file")
    if os.path.basename(installed) != CLIENT or not fields.get("server-address"):
        return _registered(module, installed, "")
    return _wrong_address(module, "server-address") or _registered(
        module, installed, fields["server-address"]
    )


def _is_enabled(fields: dict[str, str]) -> bool:
    if "enable-in" in fields:
        return PROGRAM in re.split(r"[,\s]+", fields["enable-in"])
    return PROGRAM not in re.split(r"[,\s]+", fields.get("disable-in", ""))


def _remote(module: ModuleFile, remote: str) -> Registered | LeftOut:
    problem = _wrong_address(module, "remote")
    if problem is not None:
        return problem
    client = _installed(CLIENT)
    if client is None:
        return _problem(
            module,
            f"{module.file}: {CLIENT}, which reaches remote modules, is not installed",
            "sudo apt-get install p11-kit-modules",
        )
    return _registered(module, client, remote)


def _wrong_address(module: ModuleFile, field: str) -> LeftOut | None:
    """What is wrong with the address of a server in this field; p11-kit runs one that is a command."""
    address = module.fields[field]
    if address.startswith("|"):
        if field not in module.of_user:
            return None
        return _problem(
            module,
            f"{module.file}: {field}: {address} would run a program that no list of allowed modules covers",
            "register it in /etc/pkcs11/modules, or name a socket of p11-kit server: unix:path=/SOCKET",
        )
    if address.startswith(_SERVERS):
        return None
    return _problem(
        module,
        f"{module.file}: {field}: {address} is none of |COMMAND, unix:path=/SOCKET and vsock:ADDRESS",
        "correct that line",
    )


def _registered(module: ModuleFile, path: str, server_address: str) -> Registered:
    arguments = LoadArguments(server_address, module.fields.get("x-init-reserved", ""))
    return Registered(module.name, module.file, ModuleSource(path, arguments), _is_critical(module))


def _problem(module: ModuleFile, reason: str, next_step: str) -> LeftOut:
    return LeftOut(module.name, Why.PROBLEM, reason, next_step, _is_critical(module))


def _is_critical(module: ModuleFile) -> bool:
    return module.fields.get("critical") == "yes"


def _installed(module: str) -> str | None:
    """The canonical path of a module that a file names; None if it does not exist."""
    for place in [module] if module.startswith("/") else _in_module_folders(module):
        try:
            return os.path.realpath(place, strict=True)
        except OSError:
            continue
    return None


def _in_module_folders(module: str) -> Iterator[str]:
    for pattern in _MODULE_FOLDERS:
        for folder in sorted(glob.glob(pattern)):
            yield os.path.join(folder, module)
