"""Connecting to another agent's socket: only to one of this user's or root's, and never to ourselves."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import struct
from collections.abc import Iterable

from replug.agent.clients.peer import credentials
from replug.agent.upstreams.error import UpstreamAbsentError, UpstreamError
from replug.protocol.visible_text import visible_path
from replug.token.bytes_only import BytesOnly, Disposal, bytes_only, refuse_descriptors
from replug.token.offload import Aside, TooManyThreadsError

_MOST_AT_ONCE = 4
"""Threads for one socket; its path may be on a file system that never answers."""
_PATIENCE = 1
"""Seconds for a place in the queue of the one that listens; after that the thread is free again."""

_CORRECT = "name that agent's socket in upstreams in config.toml, or take it out there"


class Connecting:
    """Makes connections to `path`, in threads: the file system, or who listens, may not answer.

    `own_sockets` are the paths that this agent listens at.
    """

    def __init__(self, path: str, own_sockets: Iterable[str]) -> None:
        self._path = path
        self._own_sockets = own_sockets
        self._threads = Aside(_MOST_AT_ONCE)
        self._disposal = Disposal()

    async def connect(self) -> socket.socket:
        """A non-blocking connection that takes no descriptors. UpstreamError."""
        loop = asyncio.get_running_loop()

        def leave(descriptor: int) -> None:
            loop.call_soon_threadsafe(self._disposal.take, descriptor)

        def abandoned(connected: socket.socket) -> None:
            BytesOnly.of(connected, leave).close()

        try:
            connected = bytes_only(await self._threads.run(self._connected, abandoned), leave)
        except TooManyThreadsError as error:
            raise UpstreamError(error.reason, error.next_step) from error
        except OSError as error:
            raise self._in_words(error) from error
        try:
            self._check_peer(*credentials(connected))
        except BaseException:
            connected.close()
            raise
        connected.setblocking(False)
        return connected

    def _connected(self) -> socket.socket:
        found = os.stat(self._path)
        if not stat.S_ISSOCK(found.st_mode):
            raise UpstreamAbsentError(f"{visible_path(self._path)} is not a socket", _CORRECT)
        if found.st_uid not in (0, os.geteuid()):
            raise UpstreamAbsentError(
                f"{visible_path(self._path)} belongs to user {found.st_uid}, not to you or root", _CORRECT
            )
        if any(_is_same(found, own) for own in self._own_sockets):
            raise self._loop()
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            refuse_descriptors(connected)
            # It limits connect(2), too.
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _PATIENCE, 0))
            connected.connect(self._path)
        except BaseException:
            connected.close()
            raise
        return connected

    def _check_peer(self, pid: int, uid: int) -> None:
        """Of the process that listens, whoever has the path."""
        if uid not in (0, os.geteuid()):
            raise UpstreamAbsentError(
                f"user {uid} listens at {visible_path(self._path)}, and that is not you or root", _CORRECT
            )
        if pid in (os.getpid(), os.getppid()):  # the supervisor made our socket
            raise self._loop()

    def _loop(self) -> UpstreamError:
        return UpstreamAbsentError(
            f"{visible_path(self._path)} is this agent itself", "take it out of upstreams in config.toml"
        )

    def _in_words(self, error: OSError) -> UpstreamError:
        path = visible_path(self._path)
        match error:
            case FileNotFoundError():
                return UpstreamAbsentError(f"{path} does not exist", "start that agent")
            case ConnectionRefusedError():
                return UpstreamAbsentError(f"no agent listens at {path}", "start that agent")
            case BlockingIOError():
                return UpstreamError(f"the agent at {path} accepts no connections", "restart it")
        return UpstreamError(f"{path}: {error.strerror or error}")


def _is_same(found: os.stat_result, path: str) -> bool:
    try:
        return os.path.samestat(found, os.stat(path))
    except OSError:
        return False
