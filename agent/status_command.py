"""`replug status`: what the agent has, and what it refused."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

from replug.agent.command import Commands
from replug.agent.control_client import ask
from replug.token.identity import printable


def add_parser(commands: Commands) -> None:
    """Declare `status`."""
    parser = commands.add_parser("status", help="tokens, keys, and the last refusals with their reasons")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Ask the agent and print the answer."""
    status = ask("status")
    if chosen.json:
        print(json.dumps(status, indent=2))
    else:
        print("\n".join(map(printable, describe(status))))
    return 0


def describe(status: dict[str, Any]) -> Iterator[str]:
    """The status as lines for a person."""
    locked = ", locked (unlock with ssh-add -X)" if status["locked"] else ""
    yield f"replug-agent (pid {status['pid']}) on {status['socket']}{locked}"
    if not status["tokens"]:
        yield "No token: add one with ssh-add -s MODULE"
    for token in status["tokens"]:
        why = f": {token['why']}" if token["why"] else ""
        lifetime = token["expires_in"]
        until = "until the agent ends" if lifetime is None else f"for {lifetime} s"
        pin = f", PIN remembered {until}" if token["pin_remembered"] else ""
        yield f'Token "{token["label"]}" (serial {token["serial"]}) is {token["state"]}{why}{pin}'
        for event in ("inserted", "removed"):
            if token[f"last_{event}"]:
                yield f"  last {event} {_clock(token[f'last_{event}'])}"
        for key in token["keys"]:
            yield f"  {key['fingerprint']} {key['comment']} ({key['type']})"
    if status["refusals"]:
        yield "Last refusals:"
    for refusal in status["refusals"]:
        yield f"  {_clock(refusal['time'])} {refusal['request']} for {refusal['program']}:"
        yield f"    {refusal['reason']}"
        if refusal["next_step"]:
            yield f"    {refusal['next_step']}"


def _clock(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
