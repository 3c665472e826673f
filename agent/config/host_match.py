"""Names hosts, by what known_hosts calls them and by their keys: the `hosts` of rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from replug.agent.config.key_choice import check_fingerprint
from replug.protocol.patterns import matches
from replug.protocol.purpose import Host

_FINGERPRINT = "SHA256:"
_LONGEST = 255  # characters
_WITH_PORT = re.compile(r"([^]:[]+):(\d+)")


def check_host(text: str) -> str:
    """Return `text` in the form to compare with; ValueError if it can name no host.

    That is a pattern for names, the fingerprint of a host key, or either behind `!` for hosts left out.
    """
    pattern = text.removeprefix("!")
    if pattern.startswith(_FINGERPRINT):
        check_fingerprint(pattern)
        return text
    if not pattern or not pattern.isprintable() or set(pattern) & set(" ,") or len(pattern) > _LONGEST:
        raise ValueError("must be a host's name, a pattern or a fingerprint, one in each string")
    if "/" in pattern or "@" in pattern:
        raise ValueError("must be a host's name alone, without user, path or protocol")
    if port := _WITH_PORT.fullmatch(pattern):
        raise ValueError(f"a host on another port is named [{port[1]}]:{port[2]}, or by its name alone")
    return text.lower()


def are_left_out(hosts: Sequence[str]) -> bool:
    """Whether `hosts` only say which are left out, and so name none."""
    return all(host.startswith("!") for host in hosts)


def names_host(hosts: Sequence[str], host: Host) -> bool:
    """Whether `hosts` name this one; never one whose key is revoked."""
    if host.known is not None and host.known.revoked:
        return False
    # Looked up rather than compared: there may be thousands of hosts, each a name.
    names = {*_names(host)}
    named = False
    for one in hosts:
        pattern = one.removeprefix("!")
        if _is_key(pattern):
            fits = pattern == host.fingerprint
        elif _is_exact(pattern):
            fits = pattern in names
        else:
            fits = any(matches(name, pattern) for name in names)
        if fits and pattern != one:
            return False
        named |= fits
    return named


def exact_names(hosts: Iterable[str]) -> list[str]:
    """The names that are spelt out in `hosts`: what known_hosts has hashed can be one of them."""
    names = (host.removeprefix("!") for host in hosts)
    return list(dict.fromkeys(name for name in names if _is_exact(name) and not _is_key(name)))


def _names(host: Host) -> Iterator[str]:
    """The host's names as known_hosts has them, and without the port."""
    known = host.known
    for name in (*known.names, *known.others) if known is not None else ():
        yield name.lower()
        if name.startswith("["):
            yield name[1:].partition("]")[0].lower()


def _is_exact(host: str) -> bool:
    return "*" not in host and "?" not in host


def _is_key(host: str) -> bool:
    return host.startswith(_FINGERPRINT)
