"""The frames between the agent and a worker process.

A frame is a JSON header and a raw body, each with a 32-bit length before it. The body carries what
JSON should not: data to sign, signatures, and PINs, which stay in one buffer that its owner can wipe.
An empty frame, without header and body, is a sign of life: the answer is on its way.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from replug.protocol.receive_buffer import ReceiveBuffer

_PREFIX = struct.Struct(">II")
MAX_HEADER = 64 * 1024
"""So that even a hostile one is decoded within a millisecond or two."""
MAX_BODY = 1024 * 1024
_encode_json = json.JSONEncoder(separators=(",", ":")).encode

_SHORT = 1024
"""Bytes of a header that may be worth remembering."""
_MOST_SIGNS = 10_000
SIGN_OF_LIFE = bytes(_PREFIX.size)

Header = dict[str, Any]


class FrameError(Exception):
    """The other side does not speak our frames."""


@dataclass(frozen=True)
class Request:
    """What a worker is asked to do, but for the body. Kept and asked again, it is encoded once."""

    operation: str
    header: Header

    @cached_property
    def text(self) -> bytes:
        """The header of its frame."""
        return _encode_json({"operation": self.operation, **self.header}).encode()


def encode(header: Header | Request, *body: bytes | bytearray) -> bytearray:
    """The frame with the parts of `body` one after another; a caller that sends a secret must wipe it."""
    text = header.text if isinstance(header, Request) else _encode_json(header).encode()
    size = sum(map(len, body))
    frame = bytearray(_PREFIX.size + len(text) + size)
    _PREFIX.pack_into(frame, 0, len(text), size)
    begin = _PREFIX.size
    with memoryview(frame) as view:
        for part in (text, *body):
            view[begin : begin + len(part)] = part
            begin += len(part)
    return frame


def _decoded(text: bytes) -> Header:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FrameError("header is not JSON") from error
    if not isinstance(header, dict):
        raise FrameError("header is not an object")
    return header


# Most are those of signatures, and equal; nobody changes a header that was received.
_decoded_before = lru_cache(maxsize=64)(_decoded)


class FrameReader(ReceiveBuffer):
    """Frames as they arrive, each an answer to the one before: there is never a second one."""

    def __init__(self) -> None:
        super().__init__(_PREFIX.size + MAX_HEADER + MAX_BODY)
        self._signs = 0
        """How many signs of life came since the last frame."""

    def take(self) -> tuple[Header, bytearray] | None:
        """The header and the body, which the caller wipes, when the frame is whole.

        Raises FrameError for what is no frame.
        """
        if self._buffer.startswith(SIGN_OF_LIFE, self._start, self._end):
            self._skip_signs_of_life()
        begin = self._start + _PREFIX.size
        if self._end < begin:
            return None
        header_length, body_length = _PREFIX.unpack_from(self._buffer, self._start)
        if header_length > MAX_HEADER or body_length > MAX_BODY:
            raise FrameError(f"frame of {header_length}+{body_length} bytes")
        body_begin = begin + header_length
        end = body_begin + body_length
        if self._end < end:
            return None
        if self._end > end:
            raise FrameError(f"{self._end - end} bytes after a frame")
        text = bytes(self._buffer[begin:body_begin])
        header = _decoded(text) if header_length > _SHORT else _decoded_before(text)
        self._signs = 0
        return header, self._take(body_begin, end)

    def _skip_signs_of_life(self) -> None:
        # Without a copy: in a request what follows may be a PIN.
        end = self._start
        while self._buffer.startswith(SIGN_OF_LIFE, end, self._end):
            end += len(SIGN_OF_LIFE)
            self._signs += 1
        if end > self._start:
            self._take(self._start, end)
        if self._signs > _MOST_SIGNS:
            raise FrameError("signs of life, and nothing else")
