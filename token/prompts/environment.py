"""The environment of the process that asks, as /proc shows it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import RawIOBase
from itertools import islice

_PIECE = 64 * 1024  # bytes, few enough to be taken apart without delay for other threads
_MOST_PIECES = 4
_MOST_VARIABLES = 2048
"""Of more, some may not be seen. Linux allows a million, and to have read them costs all other clients."""


def environment_of(pid: int) -> dict[str, str]:
    """The environment that process `pid` was started with; empty if it is gone or another user's.

    It is a hint, not an authority: the process can change it.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return dict(islice(_variables(file), _MOST_VARIABLES))
    except OSError:
        return {}


def _variables(file: RawIOBase) -> Iterator[tuple[str, str]]:
    rest = b""
    for _ in range(_MOST_PIECES):
        piece = file.read(_PIECE) or b""
        *entries, rest = (rest + piece).split(b"\0")
        for entry in entries if piece else [rest]:
            if b"=" in entry:
                name, _, value = os.fsdecode(entry).partition("=")
                yield name, value
        if not piece:
            return
