"""The frames between agent and worker."""

from __future__ import annotations

import pytest

from replug.token.worker.frames import (
    MAX_BODY,
    MAX_HEADER,
    SIGN_OF_LIFE,
    FrameError,
    FrameReader,
    Header,
    encode,
)

HEADER = {"operation": "sign", "label": "é\n", "flags": 4, "keypad": False, "nothing": None}


def receive(reader: FrameReader, data: bytes | bytearray) -> tuple[Header, bytearray] | None:
    """The frame that is whole when all of `data` has arrived."""
    frame = None
    while data:
        assert frame is None
        with reader.writable() as space:
            count = min(len(space), len(data))
            space[:count] = data[:count]
        reader.received(count)
        data, frame = data[count:], reader.take()
    return frame


@pytest.mark.parametrize("body", [b"", b"data", bytes(range(256)) * 64, bytes(MAX_BODY)])
@pytest.mark.parametrize("header", [{}, HEADER, {"long": "x" * 5000}])
def test_a_frame_is_read_as_it_was_written(header: Header, body: bytes) -> None:
    assert receive(FrameReader(), encode(header, body)) == (header, body)


def test_it_may_come_byte_by_byte_and_another_may_follow() -> None:
    reader = FrameReader()
    for body in (b"one", b"another"):
        frame = encode(HEADER, body)
        for place, byte in enumerate(frame):
            whole = receive(reader, bytes([byte]))
            assert whole == ((HEADER, body) if place == len(frame) - 1 else None)


def test_signs_of_life_before_a_frame_are_no_frames() -> None:
    reader, frame = FrameReader(), encode(HEADER, b"body")
    assert receive(reader, SIGN_OF_LIFE + SIGN_OF_LIFE[:3]) is None
    assert receive(reader, SIGN_OF_LIFE[3:] + frame[:2]) is None
    assert receive(reader, frame[2:]) == (HEADER, b"body")
    assert receive(reader, 3 * SIGN_OF_LIFE + frame) == (HEADER, b"body")


def test_signs_of_life_and_nothing_else_are_no_conversation() -> None:
    reader = FrameReader()
    receive(reader, 10_000 * SIGN_OF_LIFE)
    with pytest.raises(FrameError, match="nothing else"):
        receive(reader, SIGN_OF_LIFE)


@pytest.mark.parametrize("size", [10, 100_000])
def test_nothing_of_a_frame_is_kept(size: int) -> None:
    reader, rest = FrameReader(), encode({}, b"s" * size)
    while rest:
        first = reader._buffer
        receive(reader, rest[:4000])
        assert reader._buffer is first or not any(first)
        rest = rest[4000:]
    assert not any(reader._buffer)


def test_what_has_arrived_can_be_wiped() -> None:
    reader, frame = FrameReader(), encode({}, b"secret")
    assert receive(reader, frame[:-1]) is None
    buffer = reader._buffer
    reader.wipe()
    assert not any(buffer)
    assert receive(reader, frame) == ({}, b"secret")


def test_two_frames_are_one_too_many() -> None:
    frame = encode(HEADER, b"body")
    with pytest.raises(FrameError, match="1 bytes after a frame"):
        receive(FrameReader(), frame + frame[:1])


def prefix(*lengths: int) -> bytes:
    return b"".join(length.to_bytes(4, "big") for length in lengths)


@pytest.mark.parametrize("lengths", [(2, 1), (MAX_HEADER, MAX_BODY)])
def test_lengths_that_can_be(lengths: tuple[int, int]) -> None:
    assert receive(FrameReader(), prefix(*lengths)) is None


@pytest.mark.parametrize("lengths", [(MAX_HEADER + 1, 0), (0, MAX_BODY + 1), (2**32 - 1, 2**32 - 1)])
def test_lengths_that_cannot_be(lengths: tuple[int, int]) -> None:
    with pytest.raises(FrameError, match=f"frame of {lengths[0]}\\+{lengths[1]} bytes"):
        receive(FrameReader(), prefix(*lengths))


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"nonsense", b"[]", b'"text"', b"1", b"null"])
def test_headers_that_are_none(text: bytes) -> None:
    with pytest.raises(FrameError, match="header is not"):
        receive(FrameReader(), prefix(len(text), 1) + text + b"x")
