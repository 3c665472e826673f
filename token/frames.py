"""The frames between the agent and a worker process.

A frame is a JSON header and a raw body, each with a 32-bit length before it. The body carries what
JSON should not: data to sign, signatures, and PINs, which stay in one buffer that its owner can wipe.
"""

from __future__ import annotations

import json
import struct
from enum import StrEnum
from typing import Any

PREFIX = struct.Struct(">II")
MAX_HEADER = 4 * 1024 * 1024
MAX_BODY = 1024 * 1024

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


def encode_prefix_and_header(header: Header, body_length: int) -> bytes:
    """The bytes that go before a body of `body_length` bytes."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return PREFIX.pack(len(text), body_length) + text


def decode_prefix(prefix: bytes | bytearray) -> tuple[int, int]:
    """The lengths of header and body; FrameError when they cannot be right."""
    header_length, body_length = PREFIX.unpack(prefix)
    if header_length > MAX_HEADER or body_length > MAX_BODY:
        raise FrameError(f"frame of {header_length}+{body_length} bytes")
    return header_length, body_length


def decode_header(text: bytes | bytearray) -> Header:
    """The header; FrameError when it is not a JSON object."""
    try:
        header = json.loads(text)
    except ValueError as error:
        raise FrameError("header is not JSON") from error
    if not isinstance(header, dict):
        raise FrameError("header is not an object")
    return header
