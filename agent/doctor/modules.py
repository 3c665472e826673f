"""Whether the agent can load its modules, OpenSC's settings are usual, and our configuration is valid."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from replug.agent.config.model import AUTO
from replug.agent.control.ages import clock
from replug.agent.doctor.finding import Finding, fail, missing, ok, warn
from replug.agent.doctor.machine import Machine
from replug.agent.keys.regular_file import lines_of
from replug.protocol.patterns import matches_list
from replug.token.errors import TokenError
from replug.token.names.locate import locate_modules
from replug.token.names.p11kit import Registry, Why
from replug.token.names.uri import Uri, UriError, is_uri, parse_uri

_ELF = b"\x7fELF"
_OPENSC = "opensc-pkcs11"
_OPENSC_PACKAGE = "opensc-pkcs11"
_OR_ELSE = "or your token maker's module"


def check_modules(machine: Machine) -> Iterator[Finding]:
    """The modules that the user names, and those that the agent uses or would use, can be loaded."""
    status, registry = machine.status, machine.registry
    if status is not None:
        used = [provider["name"] for provider in status["providers"]]
    else:
        used = list(machine.config.providers())
    none_installed = AUTO in machine.config.modules and _none_installed(registry)
    names = dict.fromkeys([*machine.modules, *(name for name in used if name != AUTO or not none_installed)])
    patterns = machine.config.allowed_modules if status is None else status["allowed_modules"]
    checked: set[str] = set()
    for name in names:
        try:
            for path in _paths(name, registry):
                if path not in checked:
                    checked.add(path)
                    yield _module(path, patterns)
        except UriError as error:
            yield fail("module", f"{name} is not a PKCS#11 URI: {error}", "see RFC 7512 for its syntax")
        except TokenError as error:
            yield missing("module", error.reason, _OPENSC_PACKAGE, or_else=_OR_ELSE)
        except OSError as error:
            yield fail("module", f"{name}: {error.strerror}", "give the path of an installed module")
    if AUTO in machine.config.modules:
        if none_installed and not names.keys() - set(machine.modules) - {AUTO}:
            yield missing(
                "module",
                "no PKCS#11 module is installed, so no token can be found",
                _OPENSC_PACKAGE,
                or_else=_OR_ELSE,
            )
        yield from _registered(registry, None if status is None else status["providers"], patterns)


def _paths(name: str, registry: Registry) -> list[str]:
    """The paths of the modules that `name` means. UriError, TokenError, OSError."""
    if is_uri(name) or name == AUTO:
        uri = Uri() if name == AUTO else parse_uri(name)
        if uri.module_path is None:
            return [source.path for source in locate_modules(uri, registry)]
        return [uri.module_path]
    return [os.path.expanduser(name)]


def _none_installed(registry: Registry) -> bool:
    """Whether there is no module that the agent finds by itself."""
    if not registry.empty:
        return False
    try:
        locate_modules(Uri(), registry)
    except (TokenError, OSError):
        return True
    return False


def _registered(registry: Registry, served: list[dict[str, str]] | None, patterns: str) -> Iterator[Finding]:
    """What p11-kit has registered, and the agent does not use."""
    for left_out in registry.left_out:
        if left_out.why is Why.DISABLED:
            yield ok("module", f"{left_out.name} is registered but not used: {left_out.reason}")
        elif left_out.why is Why.PROBLEM:
            kind = fail if left_out.critical else warn
            yield kind(
                "module", f"{left_out.name} is registered but not used: {left_out.reason}", left_out.next_step
            )
    paths = None if served is None else {provider["module"] for provider in served}
    for module in registry.modules:
        path = module.source.path
        if paths is not None and path not in paths and matches_list(path, patterns):
            yield warn("module", f"{path} is registered, but this agent does not serve it", "replug reload")


def _module(path: str, patterns: str) -> Finding:
    real = os.path.realpath(path)
    try:
        # Without O_NONBLOCK, opening a FIFO waits for its writer.
        with open(os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            beginning = file.read(len(_ELF))
    except OSError as error:
        return fail("module", f"{path}: {error.strerror}", "give the path of an installed module")
    if beginning != _ELF:
        return fail("module", f"{path} is not a shared library", "give the path of an installed module")
    if not matches_list(real, patterns):
        return fail(
            "module",
            f"{real} is not in the list of allowed modules ({patterns})",
            f"replug-agent -P '{patterns},{real}'",
        )
    return ok("module", f"{path} is allowed")


def check_opensc(machine: Machine) -> Iterator[Finding]:
    """OpenSC has no settings that make other programs treat PINs and cards in surprising ways."""
    named = machine.environment.get("OPENSC_CONF")
    file = Path(named) if named else machine.root / "etc" / "opensc" / "opensc.conf"
    try:
        text = re.sub(r"#.*", "", "\n".join(lines_of(file)))
    except OSError as error:
        if named:
            yield warn("opensc", f"OPENSC_CONF names {file}: {error.strerror}", "unset OPENSC_CONF")
        return
    settings = dict(re.findall(r"(\w+)\s*=\s*([^;{}]*?)\s*;", text))
    found = [reason for name, value, reason in _SURPRISING if settings.get(name) == value]
    for reason in found:
        yield warn("opensc", f"{reason} ({file})", f"remove that line from {file}")
    if not found and "use_pin_caching" not in settings and _uses_opensc(machine):
        yield ok("opensc", "caches PINs in other programs (its default), but not in this agent")


_SURPRISING = (
    (
        "use_pin_caching",
        "true",
        "use_pin_caching: other programs send a PIN again without asking, even to a card that was inserted"
        " later; this agent does not",
    ),
    (
        "pin_cache_ignore_user_consent",
        "true",
        "pin_cache_ignore_user_consent: other programs sign without asking with keys that require the PIN at"
        " every use",
    ),
    (
        "connect_exclusive",
        "true",
        "connect_exclusive: a program that uses OpenSC locks all others out of the card",
    ),
    (
        "disconnect_action",
        "reset",
        "disconnect_action: every program that ends resets the card for all others",
    ),
)
"""Settings of opensc.conf(5), their surprising values, and the effect."""


def _uses_opensc(machine: Machine) -> bool:
    providers = (machine.status or {}).get("providers", [])
    return any(_OPENSC in provider["module"] for provider in providers)


def check_config(machine: Machine) -> Iterator[Finding]:
    """Our own configuration file is valid."""
    # Here and not at the top: no other command needs platformdirs and tomllib.
    from replug.agent.config.file import config_path, load_config
    from replug.agent.config.model import ConfigError

    path = config_path()
    try:
        load_config(path)
    except ConfigError as error:
        for problem in str(error).splitlines():
            yield fail("config", problem, error.fix or f"${{EDITOR:-vi}} {path}")
        if machine.status is not None:
            first = error.fix or "correct the file"
            yield fail("config", _what_holds(machine.status), f"{first}; replug reload")
        return
    yield ok("config", f"{path} is valid" if path.exists() else f"{path} does not exist: defaults apply")
    if (machine.status or {}).get("configuration_refused"):
        yield fail("config", _what_holds(machine.status or {}), "replug reload")
    elif machine.status is not None and _changed(path) > machine.status.get("configuration_read", _NEVER):
        yield warn("config", f"{path} was changed after the agent had read it", "replug reload")


_NEVER = float("inf")


def _what_holds(status: dict[str, Any]) -> str:
    """Which settings are those of the running agent, whose file is not valid or was not."""
    if (read := status.get("configuration_read")) is None:
        return "the running agent has the settings that it read before"
    since = status.get("configuration_refused_since")
    refused = f", and has refused the file since {clock(since, time.time())}" if since else ""
    return f"the running agent has the settings that it read at {clock(read, time.time())}{refused}"


def _changed(path: Path) -> float:
    """When the file was changed, in seconds since 1970; 0 if there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
