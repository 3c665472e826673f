"""`replug keygen`: makes a key on a token, with the user's PIN, in processes of its own."""

from __future__ import annotations

import argparse
import base64
import os
import shlex
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING

from replug.agent.commands.command import Commands
from replug.agent.control.client import AskError, ask
from replug.token.identity import LONGEST_LABEL, printable
from replug.token.worker.key_types import KeyType

if TYPE_CHECKING:
    from replug.token.keygen.key_making import NewKey, Wish
    from replug.token.names.p11kit import ModuleSource
    from replug.token.names.uri import Uri

_LABEL = "ssh"
_PATIENCE = 120.0  # seconds for the agent to read its tokens; a slow card with many keys takes its time


class _UsageError(Exception):
    """What was given cannot be meant."""


def add_parser(commands: Commands) -> None:
    """Add `keygen` to the commands of `replug`."""
    parser = commands.add_parser(
        "keygen",
        help="make a key on a token, or say which tool makes one; asks for the PIN",
        description="Make a key pair on a token and print its public key. Nothing is overwritten.",
    )
    parser.add_argument(
        "uri", nargs="?", default="pkcs11:", metavar="URI", help="a PKCS#11 URI, if there are several tokens"
    )
    parser.add_argument("--label", help=f'the label of the key, which is its comment (default "{_LABEL}")')
    parser.add_argument(
        "--type", choices=[str(kind) for kind in KeyType], help="default: the first that the token can make"
    )
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Make the key; returns the exit status."""
    # The process that was started never has the PIN: another program may have opened its memory.
    from replug.agent.process.supervisor import run_supervised

    return run_supervised(partial(_make_and_tell, chosen))


def _make_and_tell(chosen: argparse.Namespace, fork_server: socket.socket) -> int:
    import logging

    from replug.agent.process.supervisor import run_until_signal
    from replug.token.errors import ExplainedError

    # What the agent would log is said to the user here.
    logging.getLogger("replug").addHandler(logging.NullHandler())
    try:
        made = run_until_signal(_make(chosen, fork_server))
    except (_UsageError, ExplainedError) as error:
        _say(printable(str(error)))
        return 1
    comment = printable(made.key.label)
    print(f"{made.key.public.algorithm} {base64.b64encode(made.key.blob).decode()} {comment}", flush=True)
    _have_it_listed(made)
    return 0


async def _make(chosen: argparse.Namespace, fork_server: socket.socket) -> NewKey:
    from replug.agent.config.file import config_path, load_config
    from replug.agent.config.model import Config, ConfigError
    from replug.token.keygen.key_making import KeyMaker
    from replug.token.prompts.choice import ChoosingPrompter
    from replug.token.prompts.terminals import Terminals
    from replug.token.worker.forking import ForkServer

    uri, wish = _wanted(chosen)
    try:
        config = load_config(config_path())
    except ConfigError as error:
        _say(str(error))
        config = Config()
    forks = ForkServer(fork_server)
    prompter = ChoosingPrompter(
        os.environ,
        config.prompt_timeout,
        way="auto",
        pinentry_program=config.pinentry_program,
        # With nothing but our own environment the terminal comes first, if there is one.
        environment_of=lambda _: {},
        terminals=Terminals(forks),
    )
    maker = KeyMaker(forks, config.deadlines, prompter, _say)
    return await maker.make(await maker.find(await _sources(uri, config.providers()), uri), wish)


def _wanted(chosen: argparse.Namespace) -> tuple[Uri, Wish]:
    """The token, and what is wanted of the key. _UsageError."""
    from replug.token.keygen.key_making import Wish
    from replug.token.names.uri import UriError, parse_uri

    try:
        uri = parse_uri(chosen.uri)
    except UriError as error:
        raise _UsageError(f"{chosen.uri} is not a PKCS#11 URI: {error}") from error
    label = chosen.label or uri.object or _LABEL
    if len(label) > LONGEST_LABEL or not label.isprintable():
        raise _UsageError(f"a label has at most {LONGEST_LABEL} characters, and all of them can be printed")
    return uri, Wish(KeyType(chosen.type) if chosen.type else None, uri.key_id or b"", label)


async def _sources(uri: Uri, configured: tuple[str, ...]) -> list[ModuleSource]:
    """The module that the URI names, or those that the agent uses or would use."""
    from dataclasses import replace

    from replug.agent.config.model import AUTO
    from replug.agent.keys.provider_names import resolve
    from replug.token.errors import ExplainedError

    if uri.module_path is not None or uri.module_name is not None:
        return (await resolve(str(replace(uri, key_id=None, object=None))))[0]
    try:
        names = [provider["name"] for provider in ask("status")["providers"]]
    except AskError:
        names = []
    found: dict[ModuleSource, None] = {}
    reasons = []
    for name in dict.fromkeys([*names, *configured]):
        try:
            sources, _ = await resolve("pkcs11:" if name == AUTO else name)
            found |= dict.fromkeys(sources)
        except ExplainedError as error:
            reasons.append(error)
    if not found and reasons:
        raise reasons[0]
    return list(found)


def _have_it_listed(made: NewKey) -> None:
    """Have the agent read its tokens, and say why if it does not list the new key then."""
    from replug.protocol.keys import fingerprint

    try:
        refused = ask("refresh", _PATIENCE)["refused"]
        tokens = [] if refused else ask("status")["tokens"]
    except AskError as error:
        _say(f"no agent lists the key yet: {error}")
        return
    if refused:
        _say(f"the agent does not list the key yet: {refused}")
    elif not any(key["fingerprint"] == fingerprint(made.key.blob) for one in tokens for key in one["keys"]):
        _say(f"the agent does not serve this token; to serve it: ssh-add -s {shlex.quote(made.module)}")


def _say(text: str) -> None:
    print(f"replug: {printable(text)}", file=sys.stderr, flush=True)
