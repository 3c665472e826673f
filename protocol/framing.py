"""The frames of a connection to an agent (RFC 9987 section 5): a message with its length in front."""

from __future__ import annotations

from replug.protocol.constants import MAX_MESSAGE
from replug.protocol.receive_buffer import ReceiveBuffer
from replug.protocol.wire import ProtocolError

_LENGTH = 4


class MessageReader(ReceiveBuffer):
    """Messages out of bytes as they arrive: fill `writable()`, tell `received()`, and `take` until None."""

    def __init__(self) -> None:
        super().__init__(_LENGTH + MAX_MESSAGE)

    def take(self) -> bytearray | None:
        """The next message without its length, if it is there whole; the caller wipes it.

        Raises ProtocolError for a length that no message may have; what follows makes no sense then.
        """
        begin = self._start + _LENGTH
        if self._end < begin:
            return None
        length = int.from_bytes(self._buffer[self._start : begin], "big")
        if not 0 < length <= MAX_MESSAGE:
            raise ProtocolError(f"message of {length} bytes")
        end = begin + length
        return self._take(begin, end) if end <= self._end else None


def frame(payload: bytes) -> bytes:
    """Return the payload with its length in front, as it goes over the socket (section 5)."""
    return len(payload).to_bytes(_LENGTH, "big") + payload
