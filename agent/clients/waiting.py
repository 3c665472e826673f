"""What the event loop waits with: one epoll, for its own descriptors and for the clients' connections.

asyncio makes a handle and a context for every event, and a key for every registration: half the time of a
listing. Connections are told straight from here.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import select
from collections.abc import Callable, Iterator, Mapping
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector, SelectorKey
from typing import Any

_EVENTS_AT_ONCE = 64  # then the loop's other work is done


class _Keys(Mapping[Any, SelectorKey]):
    """Keys by descriptor, or by what has one: asyncio uses both for the same thing."""

    def __init__(self, by_descriptor: Mapping[int, SelectorKey]) -> None:
        self._keys = by_descriptor

    def __getitem__(self, fileobj: Any) -> SelectorKey:
        return self._keys[_descriptor(fileobj)]

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class Waiting(BaseSelector):
    """A selector for asyncio. `epoll` may hold other descriptors: `told` gets what happens to them."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.told: Callable[[list[tuple[int, int]]], None] = lambda _: None
        """Called with descriptors and events (EPOLLIN, ...), before `select` returns; it must not raise."""
        self._keys: dict[int, SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """As `BaseSelector` says, as all that follows."""
        fd = _descriptor(fileobj)
        if fd in self._keys:
            raise KeyError(f"{fileobj!r} is registered")
        self.epoll.register(fd, _epoll_events(events))
        key = self._keys[fd] = SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> SelectorKey:
        key = self._keys.pop(_descriptor(fileobj))
        with contextlib.suppress(OSError):  # one that was closed is not there any more
            self.epoll.unregister(key.fd)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        key = self.get_key(fileobj)
        if events != key.events:
            self.epoll.modify(key.fd, _epoll_events(events))
        key = self._keys[key.fd] = key._replace(events=events, data=data)
        return key

    def get_key(self, fileobj: Any) -> SelectorKey:
        return self._keys[_descriptor(fileobj)]

    def get_map(self) -> Mapping[Any, SelectorKey]:
        return _Keys(self._keys)

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        # epoll counts in milliseconds; rounded down, the loop would turn and turn until the time has come.
        wait = -1.0 if timeout is None else math.ceil(timeout * 1000) / 1000 if timeout > 0 else 0.0
        happened = self.epoll.poll(wait, _EVENTS_AT_ONCE)
        others = [one for one in happened if one[0] not in self._keys]
        if others:
            self.told(others)
            if len(others) == len(happened):
                return []
        ready = []
        for fd, events in happened:
            key = self._keys.get(fd)  # only now: what was told may have changed it
            mask = EVENT_WRITE if events & ~select.EPOLLIN else 0
            mask |= EVENT_READ if events & ~select.EPOLLOUT else 0
            if key is not None and mask & key.events:
                ready.append((key, mask & key.events))
        return ready

    def close(self) -> None:
        self.epoll.close()
        self._keys.clear()


class ClientLoop(asyncio.SelectorEventLoop):
    """The event loop of the agent."""

    def __init__(self) -> None:
        self.waiting = Waiting()
        super().__init__(self.waiting)


def _descriptor(fileobj: Any) -> int:
    return fileobj if isinstance(fileobj, int) else int(fileobj.fileno())


def _epoll_events(events: int) -> int:
    return (select.EPOLLIN if events & EVENT_READ else 0) | (select.EPOLLOUT if events & EVENT_WRITE else 0)
