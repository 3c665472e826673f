"""The keys of a `[[socket]]`, and what cannot be meant by them."""

from __future__ import annotations

import os
from collections.abc import Iterator

from replug.agent.config.host_match import are_left_out, check_host
from replug.agent.config.key_match import check_match
from replug.agent.config.keys import Key
from replug.agent.config.kinds import Confirmation, ListOf, Text, absolute_path
from replug.agent.config.socket_entry import LONGEST_PATH, SocketEntry

_RUNTIME = "$XDG_RUNTIME_DIR/"


def _path(text: str) -> str:
    if text.startswith(_RUNTIME):
        # As other programs find it: in cron jobs and after su the variable is not set.
        folder = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
        text = f"{folder}/{text.removeprefix(_RUNTIME)}"
    elif "$" in text:
        raise ValueError(f"may begin with {_RUNTIME} or ~/, and other variables mean nothing here")
    path = os.path.normpath(absolute_path(text))
    size = len(os.fsencode(path))
    if size > LONGEST_PATH:
        raise ValueError(f"has {size} bytes, and the address of a socket has {LONGEST_PATH} at most")
    if not path.isprintable():
        raise ValueError("must be printable")
    return path


SOCKET_KEYS = (
    Key(
        "path",
        Text(_path, what="a path"),
        "Where it is: $XDG_RUNTIME_DIR/..., ~/... or another absolute path, in a folder that is yours alone. "
        "It is required.",
        sample='"$XDG_RUNTIME_DIR/replug-dev/agent.sock"',
    ),
    Key(
        "keys",
        ListOf(Text(check_match, what="a pattern or a fingerprint"), alone=True, filled=True),
        "The keys that are listed and sign there: patterns for their comments, and fingerprints. It is "
        "required.",
        sample='["work*"]',
    ),
    Key(
        "confirm",
        Confirmation(),
        "Whether each use has to be confirmed (true), or only what is not a login at a verified host "
        '("other"), besides what the key itself and confirm above want. All that comes over such a socket '
        'counts as forwarded, so "forwarded" is each use, too.',
    ),
    Key(
        "hosts",
        ListOf(Text(check_host, what="a host"), alone=True),
        "The hosts that may be logged in at over it, if not empty, as in a [[certificate]]. A connection "
        "that is not bound to one of them is listed nothing, and signs nothing.",
    ),
)


def contradictions(entry: SocketEntry) -> Iterator[tuple[str, str]]:
    """What in `entry` can never apply: the name of a key, and why."""
    if entry.hosts and are_left_out(entry.hosts):
        yield "hosts", "only says which hosts are left out"
