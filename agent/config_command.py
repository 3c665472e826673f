"""`replug config`: check the configuration file, show what holds, print an example to begin with."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replug.agent.config import Problem
    from replug.agent.config_reader import Reading


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `config` to the commands of `replug`."""
    parser = commands.add_parser("config", help="check or show the configuration file")
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    check = actions.add_parser("check", help="say all that is wrong with it; exit status 1 if anything is")
    show = actions.add_parser("show", help="every setting as it holds, as TOML")
    for action in (check, show):
        action.add_argument("file", nargs="?", type=Path, help="instead of the agent's own")
    actions.add_parser("example", help="a file that explains every key, to begin with")


def run(chosen: argparse.Namespace) -> int:
    """Do what `chosen` says; the exit status."""
    from replug.agent.config import ConfigError

    try:
        match chosen.action:
            case "check":
                return _check(chosen.file)
            case "show":
                return _show(chosen.file)
            case _:
                return _example()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1


def _check(named: Path | None) -> int:
    from replug.agent.config import in_words
    from replug.agent.config_file import config_path, read_file

    path = named or config_path()
    try:
        reading = read_file(path)
    except FileNotFoundError:
        return _missing(path, named)
    problems = reading.problems or list(_problems_of_the_machine(reading))
    for problem in problems:
        print(in_words(path, problem), file=sys.stderr)
    if problems:
        return 1
    print(f"{path}: no problems found")
    return 0


def _show(named: Path | None) -> int:
    from replug.agent.config import Config, ConfigError
    from replug.agent.config_file import config_path, read_file
    from replug.agent.config_text import shown

    path = named or config_path()
    try:
        reading = read_file(path)
    except FileNotFoundError:
        if _missing(path, named):
            return 1
        config = Config()
    else:
        if reading.problems:
            raise ConfigError(path, reading.problems)
        config = reading.config
        print(f"# {path}")
    print("\n".join(shown(config)))
    return 0


def _example() -> int:
    from replug.agent.config_text import example

    print(example(), end="")
    return 0


def _missing(path: Path, named: Path | None) -> int:
    """The agent's own file may be missing, one that was named may not."""
    if named is None:
        print(f"# {path} does not exist: defaults hold")
        return 0
    print(f"{path}: No such file or directory", file=sys.stderr)
    return 1


def _problems_of_the_machine(reading: Reading) -> Iterator[Problem]:
    """What the file says rightly and is not so here: missing modules, PIN files that are not read."""
    from replug.agent.config import AUTO, Problem
    from replug.token.errors import TokenError
    from replug.token.pin_source import SourceKind, read_pin
    from replug.token.uri import is_uri, parse_uri

    config, lines = reading.config, reading.lines
    for place, name in enumerate(config.modules):
        path = parse_uri(name).module_path if is_uri(name) else name
        if path and path != AUTO:
            line = lines.get(("modules", place)) or lines.get(("modules",))
            for text in _module_problems(path, config.allowed_modules):
                yield Problem(line, f"modules: {text}")
    for place, entry in enumerate(config.tokens):
        entry_lines = {key: lines.get(("token", place, key)) for key in ("uri", "module", "pin_source")}
        if entry.module is not None:
            for text in _module_problems(entry.module, config.allowed_modules):
                yield Problem(entry_lines["module"] or entry_lines["uri"], f"module: {text}")
        # A credential is there for the service only.
        if entry.pin_source is not None and entry.pin_source.kind is SourceKind.FILE:
            try:
                read_pin(entry.pin_source).wipe()
            except TokenError as error:
                yield Problem(entry_lines["pin_source"], error.reason)


def _module_problems(path: str, allowed: str) -> Iterator[str]:
    from replug.agent.patterns import matches_list

    real = Path(path).resolve()
    if not real.is_file():
        yield f"{path} is not there" if not real.exists() else f"{path} is not a file"
    elif not matches_list(str(real), allowed):
        yield f"{real} is not in allowed_modules ({allowed})"
