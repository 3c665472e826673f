"""What a client sent: whole messages out of whatever pieces come, and nothing left behind."""

from __future__ import annotations

import random

import pytest

from replug.protocol.constants import MAX_MESSAGE
from replug.protocol.framing import MessageReader, frame
from replug.protocol.wire import ProtocolError


@pytest.fixture
def reader() -> MessageReader:
    return MessageReader()


def receive(reader: MessageReader, data: bytes) -> bytes:
    """As much of `data` as there is room for arrives; the rest of it."""
    with reader.writable() as space:
        count = min(len(space), len(data))
        space[:count] = data[:count]
    reader.received(count)
    return data[count:]


def deliver(reader: MessageReader, data: bytes) -> list[bytes]:
    """The messages that are whole when all of `data` has arrived."""
    messages = []
    while data:
        while data and not reader.full:
            data = receive(reader, data)
        messages += taken(reader)
    return messages


def taken(reader: MessageReader) -> list[bytes]:
    return [bytes(message) for message in iter(reader.take, None)]


def test_a_message_comes_out_when_it_is_whole(reader: MessageReader) -> None:
    data = frame(b"hello")
    for byte in data[:-1]:
        assert deliver(reader, bytes([byte])) == []
    assert deliver(reader, data[-1:]) == [b"hello"]


def test_messages_in_any_pieces(reader: MessageReader) -> None:
    chance = random.Random(7)
    sent = [chance.randbytes(chance.choice([1, 5, 100, 5000, 100_000])) for _ in range(60)]
    data, came = b"".join(map(frame, sent)), []
    while data:
        size = chance.choice([1, 3, 1000, 60_000])
        came += deliver(reader, data[:size])
        data = data[size:]
    assert came == sent


def test_readers_that_wait_for_nothing_hold_no_memory_and_others_none_of_theirs() -> None:
    """There may be a thousand connections, of which one or two are in the middle of something."""
    one, other = MessageReader(), MessageReader()
    assert one.size == 0
    assert receive(one, b"") == b""
    assert one.size == 0
    assert receive(one, frame(b"secret")[:-1]) == b""
    assert deliver(other, frame(b"another")) == [b"another"]
    assert one.size > 0
    assert other.size == 0
    assert deliver(one, b"t") == [b"secret"]
    assert one.size == 0
    with other.writable() as space:
        assert not any(space)


def test_the_longest_message_and_a_longer_one(reader: MessageReader) -> None:
    longest = b"x" * MAX_MESSAGE
    assert deliver(reader, frame(longest)) == [longest]
    with pytest.raises(ProtocolError, match=f"message of {MAX_MESSAGE + 1} bytes"):
        deliver(reader, frame(longest + b"x")[:4])


def test_no_message_has_no_type(reader: MessageReader) -> None:
    with pytest.raises(ProtocolError, match="message of 0 bytes"):
        deliver(reader, bytes(4))


def test_it_is_full_with_one_message_of_the_largest_size(reader: MessageReader) -> None:
    rest = frame(b"x" * MAX_MESSAGE) + frame(b"y")
    assert not reader.full
    while not reader.full:
        rest = receive(reader, rest)
    assert rest == frame(b"y")
    assert len(taken(reader)) == 1
    assert not reader.full


def test_there_is_room_until_it_is_full(reader: MessageReader) -> None:
    """A read of nothing would look like the end of the connection."""
    while not reader.full:
        assert receive(reader, b"x") == b""


def test_little_is_held_for_a_message_that_is_only_announced(reader: MessageReader) -> None:
    receive(reader, frame(b"x" * MAX_MESSAGE)[:100])
    assert len(reader._buffer) <= 4096


def test_nothing_stays_of_what_was_taken(reader: MessageReader) -> None:
    secret = b"correct horse battery staple"
    assert deliver(reader, frame(secret) + frame(b"next")[:5]) == [secret]
    assert secret not in bytes(reader._buffer)


def test_nothing_stays_of_what_nobody_took(reader: MessageReader) -> None:
    secret = b"correct horse battery staple"
    deliver(reader, frame(secret)[:-1])
    buffer = reader._buffer
    assert secret[:-1] in bytes(buffer)
    reader.wipe()
    assert not any(buffer)


def test_the_places_it_outgrew_are_wiped(reader: MessageReader, monkeypatch: pytest.MonkeyPatch) -> None:
    outgrown = []
    make_room = MessageReader._make_room

    def noting(self: MessageReader) -> None:
        outgrown.append(self._buffer)
        make_room(self)

    monkeypatch.setattr(MessageReader, "_make_room", noting)
    message = b"secret" * 10_000
    assert deliver(reader, frame(message)) == [message]
    assert len(outgrown) >= 2
    assert not any(any(buffer) for buffer in outgrown)
