"""The hosts that a client names on its command line, to find them among the hashed names of known_hosts.

That is a claim, and no more is made of it than of a guess: a name counts if its hash is there.
"""

from __future__ import annotations

import asyncio

from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread

_MOST = 64
"""Words: more than ssh's options have before the host. Behind it a command may have any number."""
_LARGEST = 16 * 1024  # bytes of a command line
_PATIENCE = 0.2  # seconds: a process can have its memory answer never


async def named_hosts(pid: int) -> list[str]:
    """The words that may be hosts, in their order; none if they cannot be read in time."""
    try:
        async with asyncio.timeout(_PATIENCE):
            return await in_daemon_thread(Share.ASKING_PROGRAMS, lambda: _read(pid))
    except (OSError, TimeoutError, TooManyThreadsError):
        return []


def _read(pid: int) -> list[str]:
    with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
        words = (file.read(_LARGEST) or b"").split(b"\0")
    names = (_host(word.decode(errors="replace")) for word in words[1:])
    return list(dict.fromkeys(name for name in names if name))[:_MOST]


def _host(word: str) -> str:
    """`server` of `root@server` and of `ssh://root@server:22`; empty for what is no host."""
    host = word.removeprefix("ssh://").rpartition("@")[2]
    if word.startswith("ssh://"):
        host = host.partition("/")[0].rpartition(":")[0] or host
    return "" if word.startswith("-") or not host or set(host) & set(" /=") else host
