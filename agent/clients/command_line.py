"""The words that a client was started with: what it says itself, for hints and never for permission."""

from __future__ import annotations

import asyncio

from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread

_LARGEST = 16 * 1024  # bytes
_PATIENCE = 0.2  # seconds: a process can have its memory answer never


async def command_line(pid: int) -> tuple[str, ...] | None:
    """The process's command line; None if it cannot be read, or not in time."""
    try:
        async with asyncio.timeout(_PATIENCE):
            return await in_daemon_thread(Share.ASKING_PROGRAMS, lambda: _read(pid))
    except (OSError, TimeoutError, TooManyThreadsError):
        return None


def _read(pid: int) -> tuple[str, ...] | None:
    with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
        words = file.read(_LARGEST)
    # Of a process that is ending, or is in the kernel alone, nothing is left.
    return tuple(word.decode(errors="replace") for word in words.split(b"\0")) if words else None
