"""`replug`, the program for the person: what is the agent doing, and why did it refuse?"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from replug.agent.control import control_path
from replug.agent.peer import Peer
from replug.token.identity import printable

_PATIENCE = 10.0  # seconds


class AskError(Exception):
    """The agent could not be asked; the text says what to do."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command in `arguments` (default: the program's); the exit status."""
    parser = argparse.ArgumentParser(prog="replug", description="Ask a running replug-agent.")
    parser.add_argument("-V", "--version", action="version", version=f"replug {version('replug')}")
    commands = parser.add_subparsers(dest="command", required=True)
    status = commands.add_parser("status", help="tokens, keys, and the last refusals with their reasons")
    status.add_argument("--json", action="store_true", help="as JSON")
    commands.add_parser("forget", help="forget all remembered PINs; the keys stay")
    chosen = parser.parse_args(arguments)
    try:
        answer = ask(chosen.command)
    except AskError as error:
        print(f"replug: {error}", file=sys.stderr)
        return 1
    if chosen.command == "forget":
        print(f"{answer['forgotten']} PINs forgotten.")
    elif chosen.json:
        print(json.dumps(answer, indent=2))
    else:
        print("\n".join(map(printable, describe(answer))))
    return 0


def ask(command: str) -> dict[str, Any]:
    """The answer to `command` of the agent that $SSH_AUTH_SOCK names; AskError."""
    agent_socket = os.environ.get("SSH_AUTH_SOCK")
    if not agent_socket:
        raise AskError("SSH_AUTH_SOCK is not set, so there is no agent to ask")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.settimeout(_PATIENCE)
        try:
            control.connect(control_path(agent_socket))
            if not Peer.of(control).allowed:
                raise AskError(f"what listens beside {agent_socket} is another user's, so it is not believed")
            control.sendall(command.encode() + b"\n")
            text = b"".join(iter(lambda: control.recv(65536), b""))
        except OSError as error:
            reason = error.strerror or str(error)
            raise AskError(f"no replug-agent answers beside {agent_socket}: {reason}") from error
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise AskError("the agent's answer makes no sense") from error
    if not isinstance(answer, dict) or "error" in answer:
        raise AskError("the agent does not know this command: is it older than this program?")
    return answer


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
