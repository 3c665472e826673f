"""The frames between agent and worker."""

from __future__ import annotations

import pytest

from replug.token.frames import (
    MAX_BODY,
    MAX_HEADER,
    PREFIX,
    FrameError,
    decode_header,
    decode_prefix,
    encode_prefix_and_header,
)


def test_a_frame_is_read_as_it_was_written() -> None:
    header = {"operation": "sign", "label": "é\n", "flags": 4, "keypad": False, "nothing": None}
    frame = encode_prefix_and_header(header, 7)
    header_length, body_length = decode_prefix(frame[: PREFIX.size])
    assert (header_length, body_length) == (len(frame) - PREFIX.size, 7)
    assert decode_header(frame[PREFIX.size :]) == header


@pytest.mark.parametrize("lengths", [(0, 0), (MAX_HEADER, MAX_BODY)])
def test_lengths_that_can_be(lengths: tuple[int, int]) -> None:
    assert decode_prefix(PREFIX.pack(*lengths)) == lengths


@pytest.mark.parametrize("lengths", [(MAX_HEADER + 1, 0), (0, MAX_BODY + 1), (2**32 - 1, 2**32 - 1)])
def test_lengths_that_cannot_be(lengths: tuple[int, int]) -> None:
    with pytest.raises(FrameError, match=f"frame of {lengths[0]}\\+{lengths[1]} bytes"):
        decode_prefix(PREFIX.pack(*lengths))


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"nonsense", b"[]", b'"text"', b"1", b"null"])
def test_headers_that_are_none(text: bytes) -> None:
    with pytest.raises(FrameError, match="header is not"):
        decode_header(text)
