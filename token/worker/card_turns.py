"""Which of the modules that use the same cards is the first to read one.

A card does one command at a time, and modules keep others from it until they have read what they want, which
takes half a minute with a slow card. What a client waits for must not come second to a look at the slots.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Protocol
from weakref import WeakKeyDictionary

from replug.token.requester import NOBODY, requester

_LOOK = 0.1  # seconds
_MOMENT = 0.01  # seconds in which a module that has found a card goes on with it
_NEVER = float("-inf")
_SETTLED = 3.0
"""Seconds after a card was opened, at least, in which those sign who have waited for that.

It is as long as the opening took: with a slow card the look takes long, too, and delays whoever comes then.
So a look that has to read a card waits until the slow one of another module was not used for as long.
"""
_LONGEST = 300.0
"""Seconds that a look waits at most for modules that open no card: one that only fails must not blind others.

It waits longer for one that opens its card again and again: that one's clients would wait for the look.
"""


class CardUser(Protocol):
    """The workers of one module."""

    @property
    def opens_a_card(self) -> bool:
        """Whether one of them may be opening a card of pcscd."""

    @property
    def has_a_card_open(self) -> bool:
        """Whether one of them has read a token and can use it."""

    @property
    def wanted_at(self) -> float:
        """When a client last wanted one, on the loop's clock."""

    @property
    def used_at(self) -> float:
        """When a client last used one that was logged in."""


class CardTurns:
    """Lets modules look at cards after the module that a client has used last."""

    def __init__(self) -> None:
        self._settled_at: WeakKeyDictionary[CardUser, float] = WeakKeyDictionary()
        """All users, and until when others wait after each has opened a card."""
        self._took: WeakKeyDictionary[CardUser, float] = WeakKeyDictionary()
        """How many seconds the last opening took that was seen."""
        self._opening_since: WeakKeyDictionary[CardUser, float] = WeakKeyDictionary()
        """Those that were seen to open one."""
        self._held_back: set[CardUser] = set()
        self._given_back = asyncio.Event()

    def join(self, user: CardUser) -> None:
        """`user` may use cards."""
        self._settled_at[user] = _NEVER

    def holds_back(self, user: CardUser) -> bool:
        """Whether `user` waits for its turn."""
        return user in self._held_back

    def given_back(self) -> None:
        """Somebody's worker has nothing to do."""
        self._given_back.set()
        self._given_back.clear()

    async def come_to(self, user: CardUser) -> None:
        """Wait while another opens a card that comes first, unless a client wants what follows, or `user`."""
        if requester.get() != NOBODY or not self._another_comes_before(user):
            return
        loop = asyncio.get_running_loop()
        begin = loop.time()
        with self._holding_back(user):
            while user.wanted_at <= begin and loop.time() <= self._last_success(begin) + _LONGEST:
                if self._another_comes_before(user):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK):
                            await self._given_back.wait()
                await asyncio.sleep(_MOMENT)
                if not self._another_comes_before(user):
                    return

    def _last_success(self, begin: float) -> float:
        """Since when no card was opened, but not before `begin`."""
        return max(begin, *self._settled_at.values())

    @contextlib.contextmanager
    def _holding_back(self, user: CardUser) -> Iterator[None]:
        self._held_back.add(user)
        try:
            yield
        finally:
            self._held_back.discard(user)

    def _another_comes_before(self, user: CardUser) -> bool:
        return any(
            other is not user
            and other.used_at > user.used_at
            and (self._has_its_turn(other) or self._would_be_delayed(other, user))
            for other in self._settled_at
        )

    def _would_be_delayed(self, other: CardUser, user: CardUser) -> bool:
        """Whether clients go on using the slow card of `other`, which `user` would have to read first."""
        took = self._took.get(other, 0.0)
        quiet = asyncio.get_running_loop().time() - other.used_at
        return took > _SETTLED and quiet < took and not user.has_a_card_open

    def _has_its_turn(self, user: CardUser) -> bool:
        now = asyncio.get_running_loop().time()
        if user.opens_a_card and user not in self._held_back:
            self._opening_since.setdefault(user, now)
            return True
        since = self._opening_since.pop(user, now)
        # It may have found nothing to open.
        if since < now and user.has_a_card_open:
            self._took[user] = now - since
            self._settled_at[user] = now + max(_SETTLED, now - since)
        return now < self._settled_at[user]
