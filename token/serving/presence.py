"""The state of a token, and everything that changes it: one method for each event.

Code that notices an event (a scan of the slots, a worker, a refused PIN) reports it here and sets no state.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from enum import StrEnum

from replug.token.boottime import boottime
from replug.token.errors import ModuleUnreachableError, PinLockedError, TokenAbsentError, TokenError
from replug.token.identity import TokenFlag, TokenId

log = logging.getLogger(__name__)


class TokenState(StrEnum):
    """Whether a token can be used, and if not, what it lacks."""

    ABSENT = "absent"
    PRESENT = "present"
    READY = "ready"  # logged in, or no login is required
    LOCKED = "locked"
    UNREACHABLE = "unreachable"


_NOTICED = 1.0  # seconds after a removal or insertion, until everybody has noticed
_TRUSTED = 10.0  # seconds for which a worker's word counts that a token is out
_OUT = (TokenState.ABSENT, TokenState.UNREACHABLE)


class Presence:
    """One token: whether it is there and can be used."""

    def __init__(self, identity: TokenId, changed: Callable[[], None]) -> None:
        """`changed` is called after each change of state."""
        self.identity = identity
        self._changed = changed
        self.reason = ""
        """Why the token is absent, locked or unreachable; else empty."""
        self.slot: int | None = None
        """The slot it was in at the last scan."""
        self.flags = TokenFlag(0)
        """As last read. They may have changed since, so each login reads them again."""
        self.removable = True
        """Whether its slot is one that tokens can be removed from, if that is known."""
        self.closed = False
        """Whether the agent no longer serves it."""
        self.last_inserted: float | None = None
        """When it was last inserted, in seconds since the epoch."""
        self.last_removed: float | None = None
        self.left_at: float | None = None
        """The same on the boot clock, which nobody sets."""
        self._arrival = float("-inf")
        """When a card was inserted that may be this token, on the boot clock."""
        self._state = TokenState.ABSENT
        self.present = False
        """Whether it was in a slot at the last scan, and the module could be asked; follows the state."""
        self._back = asyncio.Event()

    @property
    def state(self) -> TokenState:
        """The state now; only this class changes it."""
        return self._state

    def known_to_be_out(self, since: float) -> bool:
        """Whether a worker that started at the time `since`, on the boot clock, would see it if it were in.

        Not one that was started while pcscd and the module noticed a card that left or arrived; and not for
        ever, as a module that could not reach a card at its first attempt may not try again.
        """
        if self._state is not TokenState.ABSENT or self.left_at is None:
            return False
        return max(self.left_at, self._arrival) + _NOTICED <= since and boottime() - since < _TRUSTED

    def may_be_back(self) -> None:
        """A card was inserted that may be this token."""
        self._arrival = boottime()

    @property
    def how_to_bring_back(self) -> str:
        """What the user can do while it is in no slot; empty where nothing can be plugged in."""
        return "plug it in" if self.removable else ""

    async def wait_until_back(self) -> None:
        """Return when the token is in a slot, or is no longer served."""
        await self._back.wait()

    def returned(self) -> None:
        """The token is in a slot (again)."""
        if self._state is TokenState.ABSENT:
            self.last_inserted = time.time()
        if self._state in _OUT:
            self.__become(TokenState.PRESENT)
        self._back.set()

    def left(self) -> None:
        """The token is no longer in a slot."""
        if self._state is not TokenState.ABSENT:
            self.last_removed, self.left_at = time.time(), boottime()
            self._back.clear()
        self.__become(TokenState.ABSENT, "it is in no slot")

    def cut_off(self, reason: str) -> None:
        """The module cannot be asked. A token that is out stays out."""
        if self._state is not TokenState.ABSENT:
            self.__become(TokenState.UNREACHABLE, reason)

    def opened(self, *, logged_in: bool) -> None:
        """A worker has read its keys; `logged_in` is true also if no login is required."""
        self.returned()
        self.__become(TokenState.READY if logged_in else TokenState.PRESENT)

    def logged_out(self) -> None:
        """Its sessions have ended, or end with what is under way."""
        if self._state is TokenState.READY:
            self.__become(TokenState.PRESENT)

    def pin_locked(self, reason: str) -> None:
        """The token no longer accepts any PIN."""
        self.__become(TokenState.LOCKED, reason)

    def failed(self, error: TokenError) -> None:
        """An operation on it has ended with this error."""
        match error:
            case TokenAbsentError():
                self.left()
            case PinLockedError():
                self.pin_locked(error.reason)
            case ModuleUnreachableError():
                self.cut_off(error.reason)

    def close(self) -> None:
        """It is no longer served; `wait_until_back` returns."""
        self.closed = True
        self._back.set()

    def __become(self, state: TokenState, reason: str = "") -> None:
        # Two underscores: a subclass, too, reports events and sets no state.
        changed = state is not self._state
        self._state, self.present, self.reason = state, state not in _OUT, reason
        if changed:
            log.info("token %s", state, extra={"token": str(self.identity), "why": reason})
            self._changed()
