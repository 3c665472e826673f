"""What a client sent: whole messages out of whatever pieces come, and nothing left behind."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest

from replug.agent.clients.inbox import Inbox, MessageLengthError
from replug.protocol.constants import MAX_MESSAGE
from replug.protocol.decoding import frame


class Sender:
    """A client and the inbox at the other end."""

    def __init__(self) -> None:
        self.client, self._end = socket.socketpair()
        self.client.setblocking(False)
        self._end.setblocking(False)
        self.inbox = Inbox()

    def close(self) -> None:
        self.client.close()
        self._end.close()

    def deliver(self, data: bytes) -> list[bytes]:
        """The messages that are whole when all of `data` has arrived."""
        messages = []
        while data:
            data = data[self.client.send(data) :]
            while not self.inbox.full:
                try:
                    self.inbox.receive(self._end)
                except BlockingIOError:
                    break
            messages += self.taken()
        return messages

    def taken(self) -> list[bytes]:
        return [bytes(message) for message in iter(self.inbox.take, None)]


@pytest.fixture
def sender() -> Iterator[Sender]:
    sender = Sender()
    yield sender
    sender.close()


def test_a_message_comes_out_when_it_is_whole(sender: Sender) -> None:
    data = frame(b"hello")
    for byte in data[:-1]:
        assert sender.deliver(bytes([byte])) == []
    assert sender.deliver(data[-1:]) == [b"hello"]


def test_messages_in_any_pieces(sender: Sender) -> None:
    chance = random.Random(7)
    sent = [chance.randbytes(chance.choice([1, 5, 100, 5000, 100_000])) for _ in range(60)]
    data, came = b"".join(map(frame, sent)), []
    while data:
        size = chance.choice([1, 3, 1000, 60_000])
        came += sender.deliver(data[:size])
        data = data[size:]
    assert came == sent


def test_the_longest_message_and_a_longer_one(sender: Sender) -> None:
    longest = b"x" * MAX_MESSAGE
    assert sender.deliver(frame(longest)) == [longest]
    with pytest.raises(MessageLengthError):
        sender.deliver(frame(longest + b"x")[:4])


def test_no_message_has_no_type(sender: Sender) -> None:
    with pytest.raises(MessageLengthError):
        sender.deliver(bytes(4))


def test_it_is_full_with_one_message_of_the_largest_size(sender: Sender) -> None:
    many = frame(b"y") * 10
    assert not sender.inbox.full
    sender.client.setblocking(True)
    sender.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_MESSAGE)
    sender.client.sendall(frame(b"x" * MAX_MESSAGE) + many[:1])
    while not sender.inbox.full:
        sender.inbox.receive(sender._end)
    assert len(sender.taken()) == 1
    assert not sender.inbox.full


def test_nothing_stays_of_what_was_taken(sender: Sender) -> None:
    secret = b"correct horse battery staple"
    assert sender.deliver(frame(secret) + frame(b"next")[:5]) == [secret]
    assert secret not in bytes(sender.inbox._buffer)


def test_nothing_stays_of_what_nobody_took(sender: Sender) -> None:
    secret = b"correct horse battery staple"
    sender.deliver(frame(secret)[:-1])
    buffer = sender.inbox._buffer
    assert secret[:-1] in bytes(buffer)
    sender.inbox.close()
    assert not any(buffer)


def test_the_places_it_outgrew_are_wiped(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    outgrown = []
    make_room = Inbox._make_room

    def noting(self: Inbox) -> None:
        outgrown.append(self._buffer)
        make_room(self)

    monkeypatch.setattr(Inbox, "_make_room", noting)
    message = b"secret" * 10_000
    assert sender.deliver(frame(message)) == [message]
    assert len(outgrown) >= 2
    assert not any(any(buffer) for buffer in outgrown)
