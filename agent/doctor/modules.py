"""Whether the agent can load its modules, OpenSC's settings are usual, and our configuration is valid."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from replug.agent.config.model import AUTO
from replug.agent.doctor.finding import Finding, fail, ok, warn
from replug.agent.doctor.machine import Machine
from replug.protocol.patterns import matches_list
from replug.token.errors import TokenError
from replug.token.locate import locate_module
from replug.token.uri import Uri, UriError, is_uri, parse_uri

_ELF = b"\x7fELF"
_OPENSC = "opensc-pkcs11"


def check_modules(machine: Machine) -> Iterator[Finding]:
    """The modules that the user names, and those that the agent uses or would use, can be loaded."""
    status = machine.status
    if status is not None:
        used = [provider["name"] for provider in status["providers"]]
    else:
        used = ["" if name == AUTO else name for name in machine.config.providers()]
    names = dict.fromkeys([*machine.modules, *used])
    patterns = machine.config.allowed_modules if status is None else status["allowed_modules"]
    for name in names or [""]:
        yield _module(name, patterns)


def _module(name: str, patterns: str) -> Finding:
    try:
        uri = parse_uri(name) if is_uri(name) else Uri()
        path = locate_module(uri) if is_uri(name) or not name else os.path.expanduser(name)
    except UriError as error:
        return fail("module", f"{name} is not a PKCS#11 URI: {error}", "see RFC 7512 for its syntax")
    except TokenError as error:
        reason = error.reason if name else "no PKCS#11 module is installed"
        return fail("module", reason, "sudo apt-get install opensc-pkcs11, or your token maker's module")
    real = os.path.realpath(path)
    try:
        with open(real, "rb") as file:
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
        text = re.sub(r"#.*", "", file.read_text(errors="replace"))
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
            yield fail("config", problem, f"${{EDITOR:-vi}} {path}")
    else:
        yield ok("config", f"{path} is valid" if path.exists() else f"{path} does not exist: defaults apply")
