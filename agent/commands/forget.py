"""`replug forget`: the agent forgets all PINs, or which keys hosts have accepted."""

from __future__ import annotations

import argparse
import sys

from replug.agent.commands.command import Commands
from replug.agent.control.client import ask
from replug.token.identity import printable


def add_parser(commands: Commands) -> None:
    """Add `forget` to the commands of `replug`."""
    parser = commands.add_parser("forget", help="forget all remembered PINs; the keys stay")
    parser.add_argument(
        "--hosts", action="store_true", help="forget which keys hosts have accepted instead, and no PIN"
    )
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Make the agent forget, and print how much there was; 1 if what it remembers cannot be removed."""
    if chosen.hosts:
        answer = ask("forget-hosts")
        if answer["failed"]:
            print(f"replug: {printable(answer['failed'])}", file=sys.stderr)
            return 1
        count = answer["forgotten"]
        print(f"{count} {'host' if count == 1 else 'hosts'} forgotten.")
        return 0
    count = ask("forget")["forgotten"]
    print(f"{count} {'PIN' if count == 1 else 'PINs'} forgotten.")
    return 0
