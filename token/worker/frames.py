"""The frames between the agent and a worker process.

A frame is a JSON header and a raw body, each with a 32-bit length before it. The body carries what
JSON should not: data to sign, signatures, and PINs, which stay in one buffer that its owner can wipe.
"""

from __future__ import annotations

import json
import struct
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from replug.protocol.secrets import copy_over, wipe

if TYPE_CHECKING:
    import socket

PREFIX = struct.Struct(">II")
MAX_HEADER = 4 * 1024 * 1024
MAX_BODY = 1024 * 1024
_USUAL = 4096  # bytes; nearly every frame fits
_encode_json = json.JSONEncoder(separators=(",", ":")).encode

Header = dict[str, Any]


class Verdict(StrEnum):
    """How a worker refuses. All but FAILED are answers; FAILED means this worker is of no more use."""

    PIN_INCORRECT = "pin-incorrect"
    PIN_LOCKED = "pin-locked"
    PIN_UNUSABLE = "pin-unusable"  # wrong length or characters: it never reached the token's counter
    PIN_NOT_SET = "pin-not-set"
    LOGIN_CANCELLED = "login-cancelled"
    MECHANISM = "mechanism"
    NOT_A_MODULE = "not-a-module"
    NOT_A_KEY = "not-a-key"
    TOKEN_ABSENT = "token-absent"  # noqa: S105 - not a password
    NOT_LOGGED_IN = "not-logged-in"
    FAILED = "failed"


class FrameError(Exception):
    """The other side does not speak our frames."""


def encode(header: Header, *body: bytes | bytearray) -> bytearray:
    """The frame with the parts of `body` one after another; who sends a secret in it wipes it."""
    text = _encode_json(header).encode()
    size = sum(map(len, body))
    frame = bytearray(PREFIX.size + len(text) + size)
    PREFIX.pack_into(frame, 0, len(text), size)
    begin = PREFIX.size
    with memoryview(frame) as view:
        for part in (text, *body):
            view[begin : begin + len(part)] = part
            begin += len(part)
    return frame


class FrameReader:
    """Frames as they arrive on a socket, each an answer to the one before: there is never a second one.

    It reads into one buffer and leaves nothing of a frame in it.
    """

    def __init__(self) -> None:
        self._buffer = bytearray(_USUAL)
        self._end = 0

    def receive(self, connection: socket.socket) -> tuple[Header, bytearray] | None:
        """Take what is there: the header and the body when the frame is whole.

        Raises EOFError when the other side is gone, FrameError for what is no frame, and what recv(2) does.
        """
        with memoryview(self._buffer) as view:
            count = connection.recv_into(view[self._end :])
        if count == 0:
            raise EOFError
        self._end += count
        if self._end < PREFIX.size:
            return None
        header_length, body_length = decode_prefix(self._buffer)
        body_begin = PREFIX.size + header_length
        end = body_begin + body_length
        if self._end > end:
            raise FrameError(f"{self._end - end} bytes after a frame")
        if self._end < end:
            self._make_room(end)
            return None
        header = decode_header(self._buffer[PREFIX.size : body_begin])
        body = self._buffer[body_begin:end]
        self.wipe()
        return header, body

    def wipe(self) -> None:
        """Leave nothing of what has arrived."""
        wipe(self._buffer, 0, self._end)
        self._end = 0
        if len(self._buffer) > _USUAL:
            self._buffer = bytearray(_USUAL)

    def _make_room(self, size: int) -> None:
        if len(self._buffer) < size:
            # A bytearray that grows may be moved, and its old place is not wiped.
            before, self._buffer = self._buffer, bytearray(size)
            copy_over(before, 0, self._end, self._buffer)
            wipe(before)


def decode_prefix(frame: bytes | bytearray) -> tuple[int, int]:
    """The lengths of header and body; FrameError when they cannot be right."""
    header_length, body_length = PREFIX.unpack_from(frame)
    if header_length > MAX_HEADER or body_length > MAX_BODY:
        raise FrameError(f"frame of {header_length}+{body_length} bytes")
    return header_length, body_length


def decode_header(text: bytes | bytearray) -> Header:
    """The header; FrameError when it is not a JSON object."""
    try:
        header = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise FrameError("header is not JSON") from error
    if not isinstance(header, dict):
        raise FrameError("header is not an object")
    return header
