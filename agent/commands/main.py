"""`replug`, the program for the user: one file for each command, and this table of them."""

from __future__ import annotations

import argparse
import os
import sys

from replug.agent.commands import (
    ca,
    config,
    doctor,
    explain,
    forget,
    history,
    keygen,
    logs,
    refresh,
    reload,
    setup,
    status,
    unlock,
)
from replug.agent.commands import help as help_command
from replug.agent.commands.command import Command
from replug.agent.commands.parser import Parser
from replug.agent.control.client import AskError
from replug.agent.control.places import choose_system_service

# 128 + the signal, as in shells.
_INTERRUPTED = 130
_PIPE_CLOSED = 141
COMMANDS: tuple[Command, ...] = (
    status,
    unlock,
    forget,
    refresh,
    keygen,
    ca,
    doctor,
    explain,
    logs,
    history,
    config,
    reload,
    setup,
    help_command,
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command in `arguments` (None: those of the process); returns the exit status."""
    try:
        try:
            return _run(sys.argv[1:] if arguments is None else arguments)
        finally:
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


def _run(arguments: list[str]) -> int:
    parser = make_parser()
    if not arguments:
        parser.print_help()
        return 0
    chosen = parser.parse_args(arguments, argparse.Namespace(program=parser))
    if chosen.run is not setup.run:
        choose_system_service(os.environ)
    status: int = chosen.run(chosen)
    return status


def make_parser() -> Parser:
    """The parser of the command line; each command adds its own arguments."""
    parser = Parser(prog="replug", description="Inspect and control a running replug-agent.")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    parser.words = commands.choices
    return parser
