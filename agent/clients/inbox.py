"""What a client has sent and nobody has looked at yet."""

from __future__ import annotations

import socket

from replug.protocol.constants import MAX_MESSAGE
from replug.protocol.secrets import copy_over, wipe

_LENGTH = 4
_SMALL = 4096  # bytes; nearly every request fits
_FULL = _LENGTH + MAX_MESSAGE


class MessageLengthError(Exception):
    """A client announces a message of a length that none may have."""


class Inbox:
    """One buffer that is filled from the socket and leaves nothing behind: requests hold PINs and keys.

    A growing bytearray would be moved by the allocator, which does not wipe the old place; and `recv` would
    return bytes, which nobody can wipe.
    """

    def __init__(self) -> None:
        self._buffer = bytearray(_SMALL)
        self._start = 0
        self._end = 0

    @property
    def full(self) -> bool:
        """Whether it has as much as a message of the largest size: no more is read before some is taken."""
        return self._end - self._start >= _FULL

    def receive(self, client: socket.socket) -> int:
        """Take what has arrived, as recv(2) does, and return how many bytes; 0 at the end."""
        if self._end == len(self._buffer):
            self._make_room()
        with memoryview(self._buffer) as view:
            count = client.recv_into(view[self._end :])
        self._end += count
        return count

    def take(self) -> bytearray | None:
        """The next message, without its length, if it is there whole; raises MessageLengthError."""
        begin = self._start + _LENGTH
        if self._end < begin:
            return None
        length = int.from_bytes(self._buffer[self._start : begin], "big")
        if not 0 < length <= MAX_MESSAGE:
            raise MessageLengthError(f"message of {length} bytes")
        end = begin + length
        if self._end < end:
            return None
        message = self._buffer[begin:end]
        wipe(self._buffer, begin, end)
        self._start = end
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._buffer) > _SMALL:
                self._buffer = bytearray(_SMALL)
        return message

    def close(self) -> None:
        """Wipe what nobody has taken."""
        wipe(self._buffer)
        self._start = self._end = 0

    def _make_room(self) -> None:
        waiting = self._end - self._start
        full = waiting == len(self._buffer)
        before, self._buffer = self._buffer, bytearray(min(4 * waiting, _FULL) if full else len(self._buffer))
        copy_over(before, self._start, self._end, self._buffer)
        wipe(before)
        self._start, self._end = 0, waiting
