"""The git repository that a client is started for, by the command that git gives its ssh.

    ssh git@host "git-upload-pack '/work-org/repo.git'"

That is what the program says itself: a hint, which decides the order of keys and never what may be used.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from replug.protocol.patterns import matches

_SERVICES = frozenset(
    ("git-upload-pack", "git-receive-pack", "git-upload-archive", "git-lfs-authenticate", "git-lfs-transfer")
)
_WITHOUT_DASH = frozenset(service.removeprefix("git-") for service in _SERVICES)


def asked_repository(command: Sequence[str]) -> str:
    """The path of the repository in ssh's command line, as the host gets it; empty if it is not git's."""
    for place, word in enumerate(command[1:], 1):
        if "git" in word and (path := _path(" ".join(command[place:]))):
            return path
    return ""


def split_address(address: str) -> tuple[str, str]:
    """What git calls a repository (git-fetch(1), "Git URLs"), as what ssh calls its host, and its path there.

    The path is empty for a mere host, as ssh's command line has it. ValueError for an address of another
    protocol.
    """
    if "://" in address:
        scheme, _, rest = address.partition("://")
        if scheme not in ("ssh", "git+ssh", "ssh+git"):
            raise ValueError(f"{scheme}:// is not ssh")
        place, _, path = rest.partition("/")
        return f"ssh://{place}", path
    if address.count(":") == 1 and not address.startswith("["):
        place, _, path = address.partition(":")
        if "/" not in place:
            return place, path
    return address, ""


def names_repository(repositories: Sequence[str], path: str) -> bool:
    """Whether the patterns of a rule name the repository with this path."""
    asked = _plain(path)
    forms = (asked, asked.removesuffix(".git"))
    named = False
    for one in repositories:
        pattern = _plain(one.removeprefix("!"))
        fits = any(matches(form, pattern) for form in forms)
        if fits and one.startswith("!"):
            return False
        named |= fits
    return named


def _path(command: str) -> str:
    """The first argument of a command of git; empty if it is another."""
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    match words:
        case ["git", service, path, *_] if service in _WITHOUT_DASH:
            return path
        case [program, path, *_] if program.rpartition("/")[2] in _SERVICES:
            return path
    return ""


def _plain(path: str) -> str:
    """In the form to compare: hosts of repositories take them with and without a slash, in any case."""
    return path.strip("/").lower()
