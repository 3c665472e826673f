"""`replug reload`: the configuration is in force, or it says why not (`systemctl --user reload` runs it)."""

from __future__ import annotations

import argparse
import sys
import time

from replug.agent.commands.command import Commands
from replug.agent.control.ages import clock
from replug.agent.control.client import ask, ask_at


def add_parser(commands: Commands) -> None:
    """Declare `reload`."""
    parser = commands.add_parser("reload", help="read the configuration again, and say if it is refused")
    parser.add_argument("socket", nargs="?", help="the agent's socket (default: SSH_AUTH_SOCK)")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Have the agent read the file; 1 if it refused it."""
    answer = ask_at(chosen.socket, "reload") if chosen.socket else ask("reload")
    if answer["refused"]:
        read = f"at {clock(answer['read'], time.time())}" if "read" in answer else "before"
        print(f"replug: the configuration is refused: {answer['refused']}", file=sys.stderr)
        print(f"replug: the settings read {read} remain in force", file=sys.stderr)
        return 1
    return 0
