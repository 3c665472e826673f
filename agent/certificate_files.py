"""The certificates that the configuration names, found and read anew when they change.

A certificate authority renews short-lived ones by writing the file; nobody has to tell the agent.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import glob
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress

from replug.agent.certificates import Certificates
from replug.token.offload import TooManyThreadsError, in_daemon_thread

log = logging.getLogger(__name__)

_BETWEEN = 2.0  # seconds between two looks at the files
_LARGEST = 256 * 1024  # bytes; a certificate has to fit into a message
_MOST = 256  # files

_State = tuple[int, int, int, int]


class CertificateFiles:
    """The certificates in the files that `patterns` (absolute, with the shell's wildcards) match now."""

    def __init__(self, patterns: Callable[[], Sequence[str]]) -> None:
        self._patterns = patterns
        self._read: dict[str, tuple[_State, bytes | None]] = {}
        self._certificates = Certificates(())

    def of_key(self, key_blob: bytes) -> tuple[bytes, ...]:
        """The blobs of the certificates for a public key."""
        return self._certificates.of_key(key_blob)

    async def keep_fresh(self) -> None:
        """Look every two seconds, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_BETWEEN)

    async def look(self) -> None:
        """Look once; in a thread, as a folder may be on a network."""
        patterns = tuple(self._patterns())
        if not patterns and not self._read:
            return
        with suppress(TooManyThreadsError):
            read = await in_daemon_thread(lambda: _read_all(patterns, self._read))
            if read != self._read:
                self._read = read
                self._certificates = Certificates(blob for _, blob in read.values() if blob is not None)


def _read_all(
    patterns: Sequence[str], before: dict[str, tuple[_State, bytes | None]]
) -> dict[str, tuple[_State, bytes | None]]:
    """By path; what has not changed is taken from `before`."""
    now: dict[str, tuple[_State, bytes | None]] = {}
    paths = dict.fromkeys(path for pattern in patterns for path in sorted(glob.glob(pattern)))
    for path in list(paths)[:_MOST]:
        with suppress(OSError):
            status = os.stat(path)
            state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            known = before.get(path)
            now[path] = known if known is not None and known[0] == state else (state, _read(path))
    return now


def _read(path: str) -> bytes | None:
    """The blob in a file such as ssh-keygen writes: a type, base64, a comment; None if it is none."""
    # A FIFO would keep the thread for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        words = file.read(_LARGEST).split(None, 2)
    try:
        return base64.b64decode(words[1], validate=True)
    except (IndexError, binascii.Error):
        log.warning("not a certificate", extra={"path": path})
        return None
