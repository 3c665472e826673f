"""Keeping what an agent never uses out of its memory."""

from __future__ import annotations

import ctypes
import sys

_M_MMAP_THRESHOLD = -3  # malloc.h
_M_ARENA_MAX = -8
_LARGE = 1024 * 1024  # bytes


def return_freed_memory() -> None:
    """Have large blocks go back to the kernel when they are freed (mallopt(3)).

    By itself glibc learns from the first such block to keep the next: the 16 MB that scrypt takes for
    `ssh-add -x` would be the agent's for ever, and once more for each thread that it ran in.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has nothing to tell
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_ARENA_MAX, 1)


def import_asyncio_without_ssl() -> None:
    """Import asyncio as on a Python that was built without ssl, which it is made for.

    An agent speaks over Unix sockets; ssl is 4 ms of the start and more than a megabyte. An `import ssl`
    later in the same process loads the real thing. Where ssl is there already, nothing changes.
    """
    if "ssl" in sys.modules:
        return
    sys.modules["ssl"] = None  # type: ignore[assignment]  # what Python takes for "cannot be imported"
    try:
        import asyncio  # noqa: F401
    finally:
        del sys.modules["ssl"]
