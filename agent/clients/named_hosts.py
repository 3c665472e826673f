"""The hosts that a client names on its command line, to find them among the hashed names of known_hosts.

That is a claim, and no more is made of it than of a guess: a name counts if its hash is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_MOST = 64
"""Words: more than ssh's options have before the host. Behind it a command may have any number."""
_MOST_PORTS = 2
_PORT = re.compile(r"(?:-p|-o ?port=|ssh://[^/]*:)(\d{1,5})(?:/.*)?", re.ASCII | re.IGNORECASE)
_TAKES_NEXT = ("-p", "-o")


def possible_names(command: Sequence[str], names: Sequence[str]) -> list[str]:
    """What the host may be called in known_hosts: by the words of a command line, or by one of `names`.

    With a port on the command line also as `[name]:port`.
    """
    hosts = list(dict.fromkeys([*_hosts(command), *names]))
    ports = list(dict.fromkeys(_ports(command)))[:_MOST_PORTS]
    return [*hosts, *(f"[{host}]:{port}" for port in ports for host in hosts if host[0] != "[")]


def _hosts(command: Sequence[str]) -> list[str]:
    names = (_host(word) for word in command[1:])
    return list(dict.fromkeys(name for name in names if name))[:_MOST]


def _host(word: str) -> str:
    """`server` of `root@server` and of `ssh://root@server:22`; empty for what is no host."""
    host = word.removeprefix("ssh://").rpartition("@")[2]
    if word.startswith("ssh://"):
        host = host.partition("/")[0].rpartition(":")[0] or host
    return "" if word.startswith("-") or not host or set(host) & set(" /=") else host


def _ports(command: Sequence[str]) -> Iterator[str]:
    before = ""
    for word in command[1:]:
        found = _PORT.fullmatch(f"{before}{word}" if before in _TAKES_NEXT else word)
        if found is not None:
            yield found[1]
        before = word
