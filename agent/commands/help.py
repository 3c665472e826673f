"""`replug help`: the options of the program, or of one of its commands."""

from __future__ import annotations

import argparse

from replug.agent.commands.command import Commands


def add_parser(commands: Commands) -> None:
    """Add `help` to the commands of `replug`."""
    parser = commands.add_parser("help", help="show the options of a command")
    parser.add_argument("topic", nargs="*", metavar="command", help="a command, such as config show")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Print the help of `chosen.program`, the parser of all; SystemExit if there is no such command."""
    chosen.program.parse_args([*chosen.topic, "--help"])
    return 0
