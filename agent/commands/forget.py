"""`replug forget`: no PIN stays in the agent's memory."""

from __future__ import annotations

import argparse

from replug.agent.commands.command import Commands
from replug.agent.control.client import ask


def add_parser(commands: Commands) -> None:
    """Declare `forget`."""
    parser = commands.add_parser("forget", help="forget all remembered PINs; the keys stay")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Have the agent forget, and say how much."""
    count = ask("forget")["forgotten"]
    print(f"{count} {'PIN' if count == 1 else 'PINs'} forgotten.")
    return 0
