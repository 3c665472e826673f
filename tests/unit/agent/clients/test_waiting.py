"""The selector of the agent's event loop, used as asyncio of each Python uses selectors."""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import Iterator

import pytest
from doubles.stand_ins import run, waiting

from replug.agent.clients.waiting import Waiting


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@pytest.mark.parametrize("kind", [selectors.DefaultSelector, Waiting])
def test_it_is_a_selector_like_others(
    kind: type[selectors.BaseSelector], pair: tuple[socket.socket, socket.socket]
) -> None:
    one, other = pair
    with kind() as selector:
        keys = selector.get_map()
        assert keys is not None
        assert keys.get(one) is None
        assert selector.register(one, selectors.EVENT_READ, "data").fd == one.fileno()
        with pytest.raises(KeyError):
            selector.register(one, selectors.EVENT_READ)
        # By the object and by its descriptor: asyncio of Python 3.13 looks keys up in the map.
        assert keys[one] == keys[one.fileno()] == selector.get_key(one) == selector.get_key(one.fileno())
        assert list(keys) == [one.fileno()]
        assert selector.select(0) == []
        other.send(b"x")
        assert selector.select(None) == [(keys[one], selectors.EVENT_READ)]
        selector.modify(one, selectors.EVENT_READ | selectors.EVENT_WRITE)
        assert selector.select(1) == [(keys[one], selectors.EVENT_READ | selectors.EVENT_WRITE)]
        selector.modify(one.fileno(), selectors.EVENT_WRITE)
        assert [events for _, events in selector.select(1)] == [selectors.EVENT_WRITE]
        selector.unregister(one)
        assert keys.get(one) is None
        assert len(keys) == 0
        with pytest.raises(KeyError):
            selector.unregister(one)
        selector.register(one, selectors.EVENT_READ)
        other.close()
        assert selector.select(1) == [(keys[one], selectors.EVENT_READ)]


def test_a_descriptor_that_is_used_again(pair: tuple[socket.socket, socket.socket]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = len(waiting().get_map())
        for _ in range(3):
            one, other = socket.socketpair()
            came = loop.create_future()
            loop.add_reader(one, came.set_result, None)
            other.send(b"x")
            await came
            assert loop.remove_reader(one)
            assert not loop.remove_reader(one)
            one.close()
            other.close()
        assert len(waiting().get_map()) == before

    run(main())


def test_what_it_tells_of_may_change_what_is_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    """Both happen at once: the loop hears of the second as it is after the first was told."""
    one, other = pair
    with Waiting() as selector:
        told: list[int] = []

        def tell(happened: list[tuple[int, int]]) -> None:
            told.extend(fd for fd, _ in happened)
            selector.modify(other, selectors.EVENT_READ, "new")

        selector.told = tell
        selector.epoll.register(one, selectors.EVENT_READ)
        selector.register(other, selectors.EVENT_READ, "old")
        one.send(b"x")
        other.send(b"x")
        assert [key.data for key, _ in selector.select(1)] == ["new"]
        assert told == [one.fileno()]
