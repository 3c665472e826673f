"""The messages of ssh-sk-helper."""

from __future__ import annotations

import pytest

from replug.protocol.sk_helper import (
    HelperErrorCode,
    HelperFailedError,
    OtherVersionError,
    read_answer,
    request_without_pin,
)
from replug.protocol.wire import ProtocolError


def test_a_request_is_what_openssh_sends() -> None:
    """As `ssh-add -T` of OpenSSH 9.2 does, but for the log, and for what is to be signed."""
    sent = request_without_pin(bytearray(b"KEY"), b"/sk.so", b"DATA", 3) + b"pin"

    assert sent == (
        b"\0\0\0\x32"
        b"\5" + b"\0\0\0\1" + b"\1" + b"\0\0\0\2"
        b"\0\0\0\3KEY" + b"\0\0\0\6/sk.so" + b"\0\0\0\4DATA"
        b"\0\0\0\0" + b"\0\0\0\0" + b"\0\0\0\3pin"
    )  # fmt: skip
    assert len(sent) == 4 + 0x32


def test_what_is_too_long_for_the_helper_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="262144 bytes are too many for a FIDO key to sign"):
        request_without_pin(bytearray(b"KEY"), b"internal", bytes(262144), 0)


def test_a_signature() -> None:
    assert read_answer(b"\5\0\0\0\1\0\0\0\3sig") == b"sig"


def test_an_error() -> None:
    with pytest.raises(HelperFailedError) as caught:
        read_answer(b"\5\0\0\0\0\0\0\0\x2b")
    assert caught.value.code == HelperErrorCode.WRONG_PASSPHRASE


def test_another_version_is_not_read() -> None:
    with pytest.raises(OtherVersionError, match="speaks version 6 of its protocol, not 5"):
        read_answer(b"\6whatever")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\5",
        b"\5\0\0\0\2\0\0\0\0",
        b"\5\0\0\0\1\0\0\0\3si",
        b"\5\0\0\0\1\0\0\0\1ss",
        b"\5\0\0\0\0\0\0\0\1!",
    ],
)
def test_what_is_no_answer(answer: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_answer(answer)
