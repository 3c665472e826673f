"""The connections to other agents that are open: few, so that clients find descriptors."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from replug.agent.keys.refusal import RequestRefusedError
from replug.agent.upstreams.link import Link
from replug.token.requester import Requester, requester
from replug.token.turns import FairSemaphore, who_makes_room

_MOST_IDLE = 16
_MOST_SIGNING = 32
"""Each may wait for the user as long as a signature may take."""


class OpenLinks:
    """Closes those that were not used for longest; they are opened again when they are needed."""

    def __init__(self) -> None:
        self._idle: OrderedDict[Link, None] = OrderedDict()
        self._turns = FairSemaphore(_MOST_SIGNING)
        self._signing: dict[Link, Requester] = {}

    @asynccontextmanager
    async def use(self, link: Link) -> AsyncIterator[None]:
        """A context to ask on the connection in."""
        self._idle.pop(link, None)
        try:
            yield
        finally:
            if link.is_open:
                self._idle[link] = None
                while len(self._idle) > _MOST_IDLE:
                    self._idle.popitem(last=False)[0].drop()

    @asynccontextmanager
    async def sign(self, link: Link) -> AsyncIterator[None]:
        """The same for a signature, when its turn has come: whoever has most that wait makes room."""
        asker = requester.get()
        if len(self._signing) >= _MOST_SIGNING:
            richest = who_makes_room(Counter(self._signing.values()), asker)
            if richest is not None:
                oldest = next(one for one, its in self._signing.items() if its == richest)
                why = f"{_MOST_SIGNING} signatures by other agents wait already"
                oldest.interrupt(RequestRefusedError(why, "try again"))
        async with self._turns, self.use(link):
            self._signing[link] = asker
            try:
                yield
            finally:
                del self._signing[link]
