"""The messages of OpenSSH's ssh-sk-helper, which signs with FIDO keys [ssh-sk-client.c, ssh-sk-helper.c].

The protocol is OpenSSH's own, between programs of one release; its version has been 5 since OpenSSH 8.2.
"""

from __future__ import annotations

from enum import IntEnum

from replug.protocol.constants import MAX_MESSAGE
from replug.protocol.wire import ProtocolError, Reader, string

VERSION = 5
_ERROR, _SIGN = 0, 1
_ON_STDERR, _LOG_ERRORS = b"\1", b"\0\0\0\2"
"""Where the helper logs, and what [SYSLOG_LEVEL_ERROR]."""
_NO_ALGORITHM, _NO_COMPATIBILITY = b"\0\0\0\0", b"\0\0\0\0"


class OtherVersionError(ProtocolError):
    """The helper is of a release of OpenSSH that has another protocol."""


class HelperErrorCode(IntEnum):
    """Why the helper has made no signature [ssherr.h]; other numbers say less."""

    INVALID_FORMAT = 4
    """Of the library, this can be any failure."""
    WRONG_PASSPHRASE = 43
    """The PIN is wrong, or none was given and one is needed."""
    UNSUPPORTED = 59
    DEVICE_NOT_FOUND = 60


class HelperFailedError(Exception):
    """The helper's answer is an error; `code` is a HelperErrorCode, or a number that is none."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"ssh-sk-helper: error {code}")


def request_without_pin(key: bytearray, provider: bytes, data: bytes, pin_size: int) -> bytearray:
    """Return the request for a signature of `data`, but for the PIN, whose `pin_size` bytes follow it.

    `key` is the private key as ADD_IDENTITY carries it. The caller wipes it, and what is returned.
    """
    parts: list[bytes | bytearray] = [
        bytes([VERSION]),
        _SIGN.to_bytes(4, "big"),
        _ON_STDERR,
        _LOG_ERRORS,
        len(key).to_bytes(4, "big"),
        key,
        string(provider),
        string(data),
        _NO_ALGORITHM,
        _NO_COMPATIBILITY,
        pin_size.to_bytes(4, "big"),
    ]
    size = sum(map(len, parts)) + pin_size
    if size > MAX_MESSAGE:
        raise ProtocolError(f"{len(data)} bytes are too many for a FIDO key to sign")
    # Joined at once, as a buffer that grows leaves copies behind.
    return bytearray().join([size.to_bytes(4, "big"), *parts])


def read_answer(answer: bytes) -> bytes:
    """Return the signature blob of an answer, which comes without its length.

    Raises `HelperFailedError` if it is an error, `OtherVersionError`, and `ProtocolError` if it is malformed.
    """
    reader = Reader(answer)
    version = reader.byte()
    if version != VERSION:
        raise OtherVersionError(f"ssh-sk-helper speaks version {version} of its protocol, not {VERSION}")
    kind = reader.uint32()
    if kind == _ERROR:
        code = reader.uint32()
        reader.check_end()
        raise HelperFailedError(code)
    if kind != _SIGN:
        raise ProtocolError(f"ssh-sk-helper answers with a message of type {kind}")
    signature = reader.string()
    reader.check_end()
    return signature
