"""`replug unlock`: gives the agent the PINs of its tokens, at this terminal, before anybody needs them.

ssh-add asks for the PIN and sends it, so it is in no process of ours but the agent's own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from replug.agent.commands.command import Commands
from replug.agent.control.client import AskError, ask
from replug.agent.control.refusal_of import why_refused
from replug.token.identity import printable

_PATIENCE = 120.0  # seconds for the agent to read its tokens, if it was just started


def add_parser(commands: Commands) -> None:
    """Add `unlock` to the commands of `replug`."""
    parser = commands.add_parser(
        "unlock",
        help="give the agent a token's PIN now, for those who cannot be asked for it",
        description="Ask for the PIN of each token that is plugged in and needs one (by ssh-add -s), so that"
        " the agent remembers it.",
    )
    parser.add_argument("token", nargs="?", help="the label of a token; default: all that need a PIN")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Ask for each PIN; 1 if one was not accepted, or no token wants one."""
    status = ask("status", _PATIENCE)
    if status["locked"]:
        print("replug: the agent is locked: unlock it with ssh-add -X", file=sys.stderr)
        return 1
    tokens = [one for one in status["tokens"] if chosen.token in (None, one["label"])]
    needy = [one for one in tokens if one["state"] != "absent" and one["keys"] and not one["pin_remembered"]]
    if not needy:
        for line in _why_none(tokens, chosen.token):
            print(f"replug: {printable(line)}", file=sys.stderr)
        return 0 if any(one["pin_remembered"] for one in tokens) else 1
    return max(_give_pin(one, status["socket"]) for one in needy)


def _why_none(tokens: list[dict[str, Any]], wanted: str | None) -> Iterator[str]:
    if not tokens:
        yield f'the agent knows no token "{wanted}"' if wanted else "the agent knows no token: plug one in"
    for one in tokens:
        if one["pin_remembered"]:
            yield f'token "{one["label"]}": the PIN is remembered already'
        elif one["state"] == "absent":
            yield f'token "{one["label"]}" is in no slot: plug it in'
        else:
            yield f'token "{one["label"]}" shows no keys: see replug status'


def _give_pin(token: dict[str, Any], agent_socket: str) -> int:
    from replug.token.names.uri import Uri

    add = shutil.which("ssh-add")
    if add is None:
        raise AskError("ssh-add is not installed: it comes with OpenSSH's client")
    uri = Uri(
        module_path=token["module"],
        **{name: token[name] or None for name in ("manufacturer", "model", "serial")},
        token=token["label"] or None,
        # What its keys were added with (-c, -t, -h) is to stay.
        pin_only="yes",
    )
    print(printable(f'Token "{token["label"]}" (serial {token["serial"] or "none"}):'), flush=True)
    with subprocess.Popen(
        [add, "-q", "-s", str(uri)],
        env=os.environ | {"SSH_AUTH_SOCK": agent_socket},
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        _, said = process.communicate()
    if process.returncode == 0:
        print("The PIN is remembered.")
        return 0
    print(f"replug: {why_refused(process.pid) or printable(said.strip())}", file=sys.stderr)
    return 1
