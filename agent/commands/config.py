"""`replug config`: check the configuration file, show the settings in effect, print an example."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from replug.agent.commands.command import Commands


def add_parser(commands: Commands) -> None:
    """Add `config` to the commands of `replug`."""
    parser = commands.add_parser("config", help="check or show the configuration file")
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    check = actions.add_parser("check", help="report every error in the file; exit status 1 if there are any")
    show = actions.add_parser("show", help="show every setting in effect, as TOML")
    for action in (check, show):
        action.add_argument("file", nargs="?", type=Path, help="a file other than the agent's own")
    actions.add_parser("example", help="print an example file that explains every key")
    parser.words = actions.choices


def run(chosen: argparse.Namespace) -> int:
    """Run the action; returns the exit status."""
    from replug.agent.config.model import ConfigError

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
    from replug.agent.config.checks import problems_of_the_machine
    from replug.agent.config.file import config_path, read_file
    from replug.agent.config.model import in_words

    path = named or config_path()
    try:
        reading = read_file(path)
    except FileNotFoundError:
        return _missing(path, named)
    problems = reading.problems or problems_of_the_machine(reading)
    for problem in problems:
        print(in_words(path, problem), file=sys.stderr)
    if problems:
        return 1
    print(f"{path}: no problems found")
    return 0


def _show(named: Path | None) -> int:
    from replug.agent.config.file import config_path, read_file
    from replug.agent.config.model import Config, ConfigError
    from replug.agent.config.text import shown

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
    from replug.agent.config.text import example

    print(example(), end="")
    return 0


def _missing(path: Path, named: Path | None) -> int:
    """Report a missing file: an error only if the user named it; returns the exit status."""
    if named is None:
        print(f"# {path} does not exist: defaults apply")
        return 0
    print(f"{path}: No such file or directory", file=sys.stderr)
    return 1
