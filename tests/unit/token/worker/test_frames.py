"""The frames between agent and worker."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from threading import Thread

import pytest

from replug.token.worker.frames import (
    MAX_BODY,
    MAX_HEADER,
    PREFIX,
    FrameError,
    FrameReader,
    Header,
    decode_header,
    decode_prefix,
    encode,
)

HEADER = {"operation": "sign", "label": "é\n", "flags": 4, "keypad": False, "nothing": None}


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        theirs.settimeout(10)
        yield ours, theirs


@pytest.mark.parametrize("body", [b"", b"data", bytes(range(256)) * 64, bytes(MAX_BODY)])
@pytest.mark.parametrize("header", [{}, HEADER, {"long": "x" * 5000}])
def test_a_frame_is_read_as_it_was_written(
    ends: tuple[socket.socket, socket.socket], header: Header, body: bytes
) -> None:
    ours, theirs = ends
    reader, frame = FrameReader(), None
    sending = Thread(target=theirs.sendall, args=[encode(header, body)])
    sending.start()
    while frame is None:
        frame = reader.receive(ours)
    sending.join()
    assert frame == (header, body)


def test_it_may_come_byte_by_byte_and_another_may_follow(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    reader = FrameReader()
    for body in (b"one", b"another"):
        frame = encode(HEADER, body)
        for place, byte in enumerate(frame):
            theirs.send(bytes([byte]))
            whole = reader.receive(ours)
            assert whole == ((HEADER, body) if place == len(frame) - 1 else None)


@pytest.mark.parametrize("size", [10, 100_000])
def test_nothing_of_a_frame_is_kept(ends: tuple[socket.socket, socket.socket], size: int) -> None:
    ours, theirs = ends
    reader, rest = FrameReader(), memoryview(encode({}, b"s" * size))
    while rest:
        rest = rest[theirs.send(rest[:9000]) :]
        first = reader._buffer
        reader.receive(ours)
        assert reader._buffer is first or not any(first)
    assert not any(reader._buffer)


def test_what_has_arrived_can_be_wiped(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    reader, frame = FrameReader(), encode({}, b"secret")
    theirs.send(frame[:-1])
    assert reader.receive(ours) is None
    reader.wipe()
    assert not any(reader._buffer)
    theirs.send(frame)
    assert reader.receive(ours) == ({}, b"secret")


def test_two_frames_are_one_too_many(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    frame = encode(HEADER, b"body")
    theirs.send(frame + frame[:1])
    with pytest.raises(FrameError, match="1 bytes after a frame"):
        FrameReader().receive(ours)


def test_the_end_is_told_from_nothing_yet(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    ours.setblocking(False)
    reader = FrameReader()
    with pytest.raises(BlockingIOError):
        reader.receive(ours)
    theirs.close()
    with pytest.raises(EOFError):
        reader.receive(ours)


@pytest.mark.parametrize("lengths", [(0, 0), (MAX_HEADER, MAX_BODY)])
def test_lengths_that_can_be(lengths: tuple[int, int]) -> None:
    assert decode_prefix(PREFIX.pack(*lengths)) == lengths


@pytest.mark.parametrize("lengths", [(MAX_HEADER + 1, 0), (0, MAX_BODY + 1), (2**32 - 1, 2**32 - 1)])
def test_lengths_that_cannot_be(ends: tuple[socket.socket, socket.socket], lengths: tuple[int, int]) -> None:
    with pytest.raises(FrameError, match=f"frame of {lengths[0]}\\+{lengths[1]} bytes"):
        decode_prefix(PREFIX.pack(*lengths))
    ours, theirs = ends
    theirs.send(PREFIX.pack(*lengths))
    with pytest.raises(FrameError):
        FrameReader().receive(ours)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"nonsense", b"[]", b'"text"', b"1", b"null"])
def test_headers_that_are_none(text: bytes) -> None:
    with pytest.raises(FrameError, match="header is not"):
        decode_header(text)
