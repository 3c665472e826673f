"""`replug reload`: the configuration is in force, or it says why not (`systemctl --user reload` runs it)."""

from __future__ import annotations

import argparse
import sys

from replug.agent.commands.command import Commands
from replug.agent.control.client import ask, ask_at


def add_parser(commands: Commands) -> None:
    """Declare `reload`."""
    parser = commands.add_parser("reload", help="read the configuration again, and say if it is refused")
    parser.add_argument("socket", nargs="?", help="the agent's socket (default: SSH_AUTH_SOCK)")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Have the agent read the file; 1 if it refused it."""
    reason = (ask_at(chosen.socket, "reload") if chosen.socket else ask("reload"))["refused"]
    if reason:
        print(f"replug: the configuration is refused: {reason}", file=sys.stderr)
        print("replug: the settings read before remain in force", file=sys.stderr)
        return 1
    return 0
