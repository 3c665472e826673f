"""The certificates in the files that the configuration names, read again when the files change.

A certificate authority renews a short-lived certificate by writing the file; no command is needed.
"""

from __future__ import annotations

import asyncio
import base64
import glob
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from replug.agent.config.settings import Settings
from replug.agent.keys.certificates import Certificates
from replug.agent.keys.regular_file import FileState, file_state, read_regular_file
from replug.protocol.certificates import Certificate
from replug.protocol.wire import ProtocolError
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread

log = logging.getLogger(__name__)

_BETWEEN = 2.0  # seconds between two scans of the files
_PATIENCE = 5.0  # seconds for one look; it goes on, and no other begins before its end
_LARGEST = 64 * 1024  # bytes; several have to fit into a message
_MOST = 256  # files


class CertificateFiles:
    """The certificates in the files that the configured patterns (absolute, with wildcards) match now."""

    def __init__(self, settings: Settings, changed: Callable[[], None]) -> None:
        """`changed` is called when `known` is not what it was."""
        self._settings = settings
        self._changed = changed
        self._read: dict[str, tuple[FileState, bytes | None]] = {}
        self.known = Certificates(())
        """What was in them at the last look; another object when that has changed."""
        self._looking: asyncio.Task[None] | None = None

    async def keep_fresh(self) -> None:
        """Look every two seconds, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_BETWEEN)

    async def look(self) -> None:
        """Look once, or wait for the look under way; at most five seconds.

        In a thread, because a network folder may never answer; only one at a time for the same reason.
        """
        if self._looking is None or self._looking.done():
            patterns = tuple(self._settings.config.certificates)
            if not patterns and not self._read:
                return
            self._looking = asyncio.create_task(self._look(patterns))
        await asyncio.wait([self._looking], timeout=_PATIENCE)

    async def _look(self, patterns: Sequence[str]) -> None:
        before = self._read
        try:
            read = await in_daemon_thread(Share.CERTIFICATE_FILES, lambda: _read_all(patterns, before))
        except TooManyThreadsError:
            return
        except Exception:
            log.exception("the certificates were not read")
            return
        if read != before:
            self._read = read
            self.known = Certificates(blob for _, blob in read.values() if blob is not None)
            self._changed()


def _read_all(
    patterns: Sequence[str], before: dict[str, tuple[FileState, bytes | None]]
) -> dict[str, tuple[FileState, bytes | None]]:
    """By path; what has not changed is taken from `before`."""
    now: dict[str, tuple[FileState, bytes | None]] = {}
    paths = dict.fromkeys(path for pattern in patterns for path in sorted(glob.glob(pattern)))
    for path in list(paths)[:_MOST]:
        with suppress(OSError, ValueError):  # gone since, or no path
            state = file_state(path)
            known = before.get(path)
            now[path] = known if known is not None and known[0] == state else (state, _read_or_say(path))
    return now


def _read_or_say(path: str) -> bytes | None:
    try:
        return _read(path)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        log.warning("not a certificate", extra={"path": path, "why": why})
        return None


def _read(path: str) -> bytes:
    """The blob in a file such as ssh-keygen writes: a type, base64, a comment; OSError, ValueError."""
    text = read_regular_file(path, _LARGEST)
    try:
        blob = base64.b64decode(text.split(None, 2)[1], validate=True)
        Certificate.decode(blob)
    except IndexError:
        raise ValueError("not the form that ssh-keygen writes") from None
    except ProtocolError as error:
        raise ValueError(str(error)) from error
    return blob
