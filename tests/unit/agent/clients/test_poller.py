"""Waiting for clients: who is ready is called, and nobody else's fault is another's."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from doubles.stand_ins import run, settle

from replug.agent.clients.poller import Poller

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    """Three connections: our end, not blocking, and the client's."""
    with ExitStack() as stack:
        made = [socket.socketpair() for _ in range(3)]
        for ours, theirs in made:
            ours.setblocking(False)
            stack.enter_context(ours)
            stack.enter_context(theirs)
        yield made


async def turns() -> None:
    """Long enough for whatever is ready now: the loop looks at its descriptors in every turn."""
    await settle()


def test_who_has_something_to_read_is_called_again_until_it_is_read(pairs: list[Pair]) -> None:
    async def main() -> None:
        poller, called = Poller(), []
        for number, (ours, _) in enumerate(pairs):
            poller.add_reader(ours, lambda number=number: called.append(number))
        pairs[1][1].send(b"x")
        await turns()
        assert set(called) == {1}
        assert len(called) > 1
        pairs[1][0].recv(1)
        called.clear()
        await turns()
        assert called == []
        pairs[2][1].close()
        await turns()
        assert set(called) == {2}
        poller.close()

    run(main())


def test_reading_and_writing_are_wanted_and_unwanted_apart(pairs: list[Pair]) -> None:
    async def main() -> None:
        (ours, theirs), poller, called = pairs[0], Poller(), []
        poller.add_reader(ours, lambda: called.append("read"))
        poller.add_writer(ours, lambda: called.append("write"))
        await turns()
        assert set(called) == {"write"}
        theirs.send(b"x")
        await turns()
        assert set(called) == {"read", "write"}
        poller.remove_writer(ours)
        called.clear()
        await turns()
        assert set(called) == {"read"}
        poller.remove_reader(ours)
        poller.remove_reader(ours)
        called.clear()
        await turns()
        assert called == []
        poller.close()

    run(main())


def test_a_callback_may_end_the_others(pairs: list[Pair]) -> None:
    async def main() -> None:
        poller, called = Poller(), []

        def end_all(number: int) -> None:
            called.append(number)
            for ours, _ in pairs:
                poller.remove_reader(ours)
                poller.remove_writer(ours)

        for number, (ours, theirs) in enumerate(pairs):
            poller.add_reader(ours, lambda number=number: end_all(number))
            poller.add_writer(ours, lambda: called.append("write"))
            theirs.send(b"x")
        await turns()
        assert len(called) == 1
        poller.close()

    run(main())


def test_one_callback_that_fails_harms_no_other(pairs: list[Pair], caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        poller, called = Poller(), []

        def fail() -> None:
            poller.remove_reader(pairs[0][0])
            raise ZeroDivisionError

        poller.add_reader(pairs[0][0], fail)
        poller.add_reader(pairs[1][0], lambda: called.append(1))
        for _, theirs in pairs[:2]:
            theirs.send(b"x")
        await turns()
        assert set(called) == {1}
        assert "a connection's callback failed" in caplog.text
        poller.close()

    run(main())


def test_closing_leaves_no_descriptor_and_calls_nobody(pairs: list[Pair]) -> None:
    async def main() -> None:
        await asyncio.sleep(0)
        before, called = os.listdir("/proc/self/fd"), []
        poller = Poller()
        poller.add_reader(pairs[0][0], lambda: called.append(0))
        pairs[0][1].send(b"x")
        poller.close()
        poller.remove_reader(pairs[0][0])
        await turns()
        assert called == []
        assert len(os.listdir("/proc/self/fd")) == len(before)

    run(main())
