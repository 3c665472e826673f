"""Keeps memory that the agent does not use from staying allocated."""

from __future__ import annotations

import ctypes
import sys

_M_MMAP_THRESHOLD = -3  # malloc.h
_M_ARENA_MAX = -8
_LARGE = 1024 * 1024  # bytes


def return_freed_memory() -> None:
    """Return large blocks to the kernel when they are freed (mallopt(3)).

    By default glibc raises its threshold at the first such block and keeps the next ones: the memory that
    scrypt takes for `ssh-add -x` would stay allocated, once for each thread it ran in.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has no mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_ARENA_MAX, 1)


def import_asyncio_without_ssl() -> None:
    """Import asyncio as on a Python built without ssl, which asyncio supports.

    The agent uses Unix sockets only; ssl is 4 ms of the start and more than a megabyte. An `import ssl`
    later in the same process loads the real thing. Where ssl is there already, nothing changes.
    """
    if "ssl" in sys.modules:
        return
    sys.modules["ssl"] = None  # type: ignore[assignment]  # makes an import fail
    try:
        import asyncio  # noqa: F401
    finally:
        del sys.modules["ssl"]
