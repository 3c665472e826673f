"""`replug`, the program for the user: one file for each command, and this table of them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from replug.agent.commands import (
    config,
    doctor,
    explain,
    forget,
    keygen,
    logs,
    refresh,
    reload,
    setup,
    status,
)
from replug.agent.commands.command import Command
from replug.agent.control.client import AskError

# 128 + the signal, as in shells.
_INTERRUPTED = 130
_PIPE_CLOSED = 141
COMMANDS: tuple[Command, ...] = (
    status,
    forget,
    refresh,
    keygen,
    doctor,
    explain,
    logs,
    config,
    reload,
    setup,
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command in `arguments` (None: those of the process); returns the exit status."""
    chosen = make_parser().parse_args(arguments)
    try:
        status: int = chosen.run(chosen)
        sys.stdout.flush()
    except AskError as error:
        print(f"replug: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # as with `replug doctor | head`
        # Python flushes what is left at exit, and complains if that fails.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    return status


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line; each command adds its own arguments."""
    parser = argparse.ArgumentParser(prog="replug", description="Inspect and control a running replug-agent.")
    parser.add_argument("-V", "--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


class _Version(argparse.Action):
    """Looks up the version only if it is asked for: that takes longer than everything else."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        from importlib.metadata import version

        print(f"replug {version('replug')}")
        parser.exit()
