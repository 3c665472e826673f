"""ssh-agent's command line, parsed as its main() does it."""

from __future__ import annotations

import getopt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from replug.agent.config.duration import parse_duration
from replug.agent.config.options import (
    DEFAULT_PROVIDER_PATTERNS,
    DEFAULT_WEBSAFE_ALLOW,
    Options,
)
from replug.agent.process.shell import prefers_csh
from replug.protocol.constants import FINGERPRINT_HASHES

_USAGE = """\
usage: {name} [-c | -s] [-DdU] [-T | -A directory | -a bind_address]
       {none} [-E fingerprint_hash] [-O option]
       {none} [-P allowed_providers] [-t life]
       {name} [-U] [-T | -A directory | -a bind_address]
       {none} [-E fingerprint_hash] [-O option]
       {none} [-P allowed_providers] [-t life] command [arg ...]
       {name} [-c | -s] -k
       {name} -u
       {name} -V
"""

_FLAGS = "cDdksTuUVA:E:a:O:P:t:"
_WEBSAFE_ALLOW = "websafe-allow="


class UsageError(Exception):
    """The options cannot be combined; the text, which may be empty, is shown before the usage."""


class ArgumentError(Exception):
    """An option has an invalid value; the text names it."""


@dataclass(frozen=True)
class Arguments:
    """The parsed command line."""

    action: Literal["serve", "kill", "clean", "version"]
    options: Options
    command: tuple[str, ...]
    """The program to run with the agent; empty for an agent that runs by itself."""
    csh: bool
    """Whether to print for the C shell rather than the Bourne shell."""
    foreground: bool
    """Whether the agent stays in the process and terminal it was started in (-d, -D)."""
    bind_address: str | None
    """The socket's path (-a); None leaves the choice to the agent."""
    in_temporary_folder: bool
    """Whether the socket goes to $TMPDIR rather than to the home directory (-T)."""
    socket_folder: str | None
    """The folder to make the socket in (-A), as `user:DIR` or `shared:DIR`."""
    skip_cleaning: bool
    """Whether to leave stale sockets alone at startup (-U)."""
    clean_any_host: bool
    """Whether cleaning takes other hosts' sockets too (-uu)."""


def usage(name: str) -> str:
    """How the program is used, by the name it was called by."""
    return _USAGE.format(name=name, none=" " * len(name))


def parse(arguments: Sequence[str], *, shell: str | None) -> Arguments:
    """Parse `arguments`, without the program's name; `shell` is the user's $SHELL.

    Raises UsageError and ArgumentError.
    """
    # ssh-agent has no long options; these are asked for by habit.
    if list(arguments) == ["--help"]:
        raise UsageError
    if list(arguments) == ["--version"]:
        arguments = ["-V"]
    try:
        given, command = getopt.getopt(list(arguments), _FLAGS)
    except getopt.GetoptError as error:
        takes_value = f"{error.opt}:" in _FLAGS
        problem = "option requires an argument" if takes_value else "unknown option"
        raise UsageError(f"{problem} -- {error.opt}") from error
    flags = [flag for flag, _ in given]
    if ("-c" in flags and "-s" in flags) or flags.count("-d") + flags.count("-D") > 1:
        raise UsageError
    if len({"-T", "-A", "-a"}.intersection(flags)) > 1:
        raise UsageError
    if command and not {"-c", "-k", "-s", "-d", "-D", "-u"}.isdisjoint(flags):
        raise UsageError
    return Arguments(
        action=_action(flags),
        options=_options(given),
        command=tuple(command),
        csh="-c" in flags or ("-s" not in flags and not command and prefers_csh(shell)),
        foreground="-d" in flags or "-D" in flags,
        bind_address=dict(given).get("-a"),
        in_temporary_folder="-T" in flags,
        socket_folder=dict(given).get("-A"),
        skip_cleaning="-U" in flags,
        clean_any_host=flags.count("-u") > 1,
    )


def _action(flags: Sequence[str]) -> Literal["serve", "kill", "clean", "version"]:
    if "-V" in flags:
        return "version"
    if "-k" in flags:
        return "kill"
    return "clean" if "-u" in flags else "serve"


def _options(given: Sequence[tuple[str, str]]) -> Options:
    extensions = [value for flag, value in given if flag == "-O"]
    return Options(
        default_lifetime=_lifetime(given),
        provider_patterns=_only(
            [value for flag, value in given if flag == "-P"],
            default=DEFAULT_PROVIDER_PATTERNS,
            repeated="-P option already specified",
        ),
        allow_remote_pkcs11="allow-remote-pkcs11" in extensions,
        restrict_websafe="no-restrict-websafe" not in extensions,
        websafe_allow=_websafe_allow(extensions),
        fingerprint_hash=_fingerprint_hash(given),
        debug=any(flag == "-d" for flag, _ in given),
        given=frozenset(flag for flag, _ in given),
    )


def _lifetime(given: Sequence[tuple[str, str]]) -> int:
    try:
        lifetimes = [parse_duration(value) for flag, value in given if flag == "-t"]
    except ValueError as error:
        raise UsageError("Invalid lifetime") from error
    return lifetimes[-1] if lifetimes else 0


def _fingerprint_hash(given: Sequence[tuple[str, str]]) -> str:
    chosen = FINGERPRINT_HASHES[0]
    for flag, value in given:
        if flag == "-E":
            chosen = value.lower()
            if chosen not in FINGERPRINT_HASHES:
                raise ArgumentError(f'Invalid hash algorithm "{value}"')
    return chosen


def _websafe_allow(extensions: Sequence[str]) -> str:
    for extension in extensions:
        known = extension in ("no-restrict-websafe", "allow-remote-pkcs11")
        if not known and not extension.startswith(_WEBSAFE_ALLOW):
            raise ArgumentError(f'Unknown -O option "{extension}"')
    return _only(
        [text.removeprefix(_WEBSAFE_ALLOW) for text in extensions if text.startswith(_WEBSAFE_ALLOW)],
        default=DEFAULT_WEBSAFE_ALLOW,
        repeated="websafe-allow already set",
    )


def _only(values: Sequence[str], *, default: str, repeated: str) -> str:
    if len(values) > 1:
        raise ArgumentError(repeated)
    return values[0] if values else default
