"""A socket whose last owner waits when it closes it, for as long as it is said to linger (socket(7))."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_SECONDS = 20


@contextmanager
def lingering() -> Iterator[socket.socket]:
    """Connected to one that does not read, and full; it is for others to close."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
        one.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                one.send(bytes(1 << 16))
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, _SECONDS))
        try:
            yield one
        finally:
            other.close()  # which is unread, so that nobody waits any more
