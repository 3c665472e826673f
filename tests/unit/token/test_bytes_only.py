"""Sockets to whom descriptors are passed that only wait for somebody to close them."""

from __future__ import annotations

import array
import asyncio
import os
import socket
import time
from collections.abc import Callable

import pytest
from doubles.stand_ins import run
from rigs.lingering import lingering

from replug.token.bytes_only import BytesOnly, Disposal, bytes_only, refuse_descriptors

_SOON = 2.0  # seconds


def pair(leave: Callable[[int], object]) -> tuple[BytesOnly, socket.socket]:
    one, other = socket.socketpair()
    return BytesOnly.of(one, leave), other


def test_bytes_are_received_as_ever() -> None:
    ours, theirs = pair(lambda _: pytest.fail("it was empty"))
    with theirs:
        theirs.sendall(b"one")
        buffer = bytearray(8)
        assert ours.recv_into(buffer) == 3
        assert buffer[:3] == b"one"
        theirs.sendall(b"two")
        assert ours.recv(2) == b"tw"
        ours.setblocking(False)
        assert ours.recv(2) == b"o"
        for receive in (lambda: ours.recv(1), lambda: ours.recv_into(buffer)):
            with pytest.raises(BlockingIOError):
                receive()
    assert ours.recv_into(buffer) == 0
    assert ours.recv(1) == b""
    ours.close()


async def done(disposal: Disposal) -> None:
    while disposal._waiting or disposal._ending:  # noqa: ASYNC110 - processes end without the loop
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("flags", [0, socket.MSG_OOB], ids=["in band", "out of band"])
@pytest.mark.parametrize("way", ["received", "received into", "closed unread"])
def test_nobody_waits_for_a_descriptor_that_was_passed(way: str, flags: int) -> None:
    async def main() -> None:
        disposal = Disposal()
        ours, theirs = pair(disposal.take)
        with theirs, lingering() as one:
            if way != "closed unread":
                theirs.sendall(b"before")
            passed = array.array("i", [one.fileno()])  # send_fds of this Python has no use for flags
            theirs.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)], flags)
            if way != "closed unread":
                theirs.sendall(b"after")
            one.close()
            begun, buffer = time.monotonic(), bytearray(100)
            ways = {"received": lambda: ours.recv(100), "received into": lambda: ours.recv_into(buffer)}
            for _ in range(2):
                if way in ways:
                    with pytest.raises(ConnectionAbortedError):
                        [ways[way]() for _ in range(2)]
            ours.close()
            await done(disposal)
            assert time.monotonic() - begun < _SOON
            with pytest.raises(BrokenPipeError):  # it is closed
                theirs.send(b"more")

    run(main())


def test_where_the_kernel_refuses_descriptors_nothing_else_is_needed() -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("")  # any abstract address
        listener.listen()
        refused = refuse_descriptors(listener)
        client.connect(listener.getsockname())
        accepted = bytes_only(listener.accept()[0], lambda _: None)
        with accepted:
            assert isinstance(accepted, BytesOnly) is not refused
            if refused:
                with pytest.raises(PermissionError):
                    socket.send_fds(client, [b"x"], [client.fileno()])
            client.sendall(b"x")
            assert accepted.recv(1) == b"x"


def test_many_are_closed_at_once() -> None:
    async def main() -> None:
        disposal = Disposal()
        descriptors = [os.dup(0) for _ in range(40)]
        for one in descriptors:
            disposal.take(one)
            assert len(disposal._waiting) < 16
        await done(disposal)
        for one in descriptors:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(one)

    run(main())
