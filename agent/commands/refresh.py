"""`replug refresh`: the agent reads its tokens again, without a PIN."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from replug.agent.commands.command import Commands
from replug.agent.control.client import ask
from replug.token.identity import printable

_PATIENCE = 120.0  # seconds: a slow card with many keys takes its time


def add_parser(commands: Commands) -> None:
    """Add `refresh` to the commands of `replug`."""
    parser = commands.add_parser(
        "refresh", help="read the keys of the tokens again, after some were made or deleted; asks for no PIN"
    )
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Make the agent read its tokens, and print what has changed; 1 if one cannot be read."""
    answer = ask("refresh", _PATIENCE)
    if answer["refused"]:
        print(f"replug: {answer['refused']}", file=sys.stderr)
        return 1
    for token in answer["tokens"]:
        if token["failed"]:
            print(f"replug: {printable(token['failed'])}", file=sys.stderr)
        else:
            print(_described(token))
    if not answer["tokens"]:
        print("No token is plugged in.")
    return int(any(token["failed"] for token in answer["tokens"]))


def _described(token: dict[str, Any]) -> str:
    count = token["keys"]
    changes = [f"{token[what]} {what}" for what in ("new", "gone") if token[what]]
    text = f"{token['token']}: {count} {'key' if count == 1 else 'keys'}"
    return printable(f"{text} ({', '.join(changes)})" if changes else text)
