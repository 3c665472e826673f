"""Connecting to Unix sockets that have a path, which the kernel walks along for as long as it takes."""

from __future__ import annotations

import socket

from replug.token.offload import Share, in_daemon_thread


async def connect(share: Share, address: str | bytes) -> socket.socket:
    """A non-blocking stream socket, connected to `address`. OSError, TooManyThreadsError.

    The caller sets the deadline: a folder on the way may be on a file system that never answers.
    """

    def connected() -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            made.connect(address)
        except BaseException:
            made.close()
            raise
        return made

    return await in_daemon_thread(share, connected, socket.socket.close)
