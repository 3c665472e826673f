"""`replug forget`: the agent forgets all PINs."""

from __future__ import annotations

import argparse

from replug.agent.commands.command import Commands
from replug.agent.control.client import ask


def add_parser(commands: Commands) -> None:
    """Add `forget` to the commands of `replug`."""
    parser = commands.add_parser("forget", help="forget all remembered PINs; the keys stay")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Make the agent forget its PINs, and print how many there were."""
    count = ask("forget")["forgotten"]
    print(f"{count} {'PIN' if count == 1 else 'PINs'} forgotten.")
    return 0
