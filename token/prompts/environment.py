"""The environment of the process that asks, as /proc shows it."""

from __future__ import annotations

import os
from collections.abc import Iterable

_LONGEST = 4 * 1024 * 1024  # bytes; Linux allows no more for arguments and environment (execve(2))


def environment_of(pid: int) -> dict[str, str]:
    """The environment that process `pid` was started with; empty if it is gone or another user's.

    It is a hint, not an authority: the process can change it.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return _parse(file.read(_LONGEST).split(b"\0"))
    except OSError:
        return {}


def _parse(entries: Iterable[bytes]) -> dict[str, str]:
    pairs = (os.fsdecode(entry).partition("=") for entry in entries if b"=" in entry)
    return {name: value for name, _, value in pairs}
