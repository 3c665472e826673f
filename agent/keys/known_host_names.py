"""The names of host keys from ssh's known_hosts files, reread when these have changed.

ssh writes a new host's key there before it sends a request to the agent, so it is enough to read them at each
session-bind.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeAlias

from replug.agent.keys.regular_file import FileState, file_state, read_regular_file
from replug.protocol.known_hosts import MOST_CANDIDATES, KnownAs, KnownHosts
from replug.token.offload import Share, TooManyThreadsError, in_daemon_thread

log = logging.getLogger(__name__)

_PATIENCE = 0.5  # seconds for one look: ssh waits; the look goes on, and no other begins before its end
_LARGEST = 4 * 1024 * 1024  # bytes of one file
_SYSTEM_FILES = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_USER_FILES = ("known_hosts", "known_hosts2")

_States: TypeAlias = dict[str, FileState | None]
"""Of the files that exist; None where the state cannot be read."""


def default_files() -> list[str]:
    """Where ssh looks unless it is configured otherwise (ssh_config(5)); may block."""
    home = pwd.getpwuid(os.getuid()).pw_dir  # as ssh has it; HOME may say anything
    return [*(os.path.join(home, ".ssh", name) for name in _USER_FILES), *_SYSTEM_FILES]


def read_known_hosts() -> KnownHosts:
    """What those of the default files say now that can be read; may block."""
    contents = []
    for path in default_files():
        with suppress(OSError, ValueError):
            contents.append(read_regular_file(path, _LARGEST))
    return KnownHosts(contents)


class KnownHostNames:
    """What the files that `paths` returns say about host keys, as of the last look."""

    def __init__(self, paths: Callable[[], Sequence[str]]) -> None:
        self._paths = paths
        self._states: _States | None = None
        self._known = KnownHosts()
        self._complete = False
        """Whether all files that exist were read."""
        self._looking: asyncio.Task[None] | None = None

    def known_as(
        self, host_key: bytes, candidates: Sequence[str] = (), *, every: bool = False
    ) -> KnownAs | None:
        """Return what is known of a host key or certificate; None if a file that may have it was not read.

        `candidates` and `every`: as for `KnownHosts.known_as`.
        """
        found = self._known.known_as(host_key, candidates[:MOST_CANDIDATES], every=every)
        for begin in range(MOST_CANDIDATES, len(candidates) if found.hashed else 0, MOST_CANDIDATES):
            more = self._known.known_as(host_key, candidates[begin : begin + MOST_CANDIDATES], every=every)
            names, others = (*found.names, *more.names), (*found.others, *more.others)
            found = replace(found, names=_once(names), others=_once(others))
        return found if self._complete or found != KnownAs() else None

    async def look(self) -> None:
        """Read what has changed, or wait for the look under way; at most half a second.

        In a thread, because a network folder may never answer; only one at a time for the same reason.
        """
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        await asyncio.wait([self._looking], timeout=_PATIENCE)

    async def _look(self) -> None:
        before = self._states
        try:
            read = await in_daemon_thread(Share.KNOWN_HOSTS, lambda: _read_changed(self._paths(), before))
        except TooManyThreadsError:
            return
        except Exception:
            log.exception("known_hosts was not read")
            return
        if read is not None:
            self._states, self._known, self._complete = read


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _read_changed(paths: Sequence[str], before: _States | None) -> tuple[_States, KnownHosts, bool] | None:
    """The files' states, what they say, and whether all were read; None if none has changed."""
    states: _States = {}
    for path in paths:
        with suppress(FileNotFoundError, NotADirectoryError):
            states[path] = _state(path)
    if states == before:
        return None
    contents: list[bytes] = []
    complete = True
    for path in states:
        try:
            contents.append(read_regular_file(path, _LARGEST))
        except (OSError, ValueError) as error:
            complete = False
            why = error.strerror if isinstance(error, OSError) else str(error)
            log.warning("known_hosts was not read", extra={"path": path, "why": why})
    return states, KnownHosts(contents), complete


def _state(path: str) -> FileState | None:
    try:
        return file_state(path)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError):
        return None
