"""Where a token stands: the one place that owns its states and what leads from one to another."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from enum import StrEnum

from replug.token.identity import TokenId

log = logging.getLogger(__name__)


class TokenState(StrEnum):
    """Where a token stands."""

    ABSENT = "absent"
    PRESENT = "present"
    READY = "ready"  # logged in, or no login is required
    LOCKED = "locked"
    UNREACHABLE = "unreachable"


class Presence:
    """A token as far as it comes, goes, and can be used."""

    def __init__(self, identity: TokenId, changed: Callable[[], None]) -> None:
        """`changed` is called after each change of state."""
        self.identity = identity
        self._changed = changed
        self.state = TokenState.ABSENT
        self.why = ""
        """The reason for the state, when it is a bad one."""
        self.last_inserted: float | None = None
        """When it was last inserted, in seconds since the epoch."""
        self.last_removed: float | None = None
        self._back = asyncio.Event()

    @property
    def present(self) -> bool:
        """Whether it was in a slot when we last looked, and the slot could be looked at."""
        return self.state not in (TokenState.ABSENT, TokenState.UNREACHABLE)

    async def wait_until_back(self) -> None:
        """Return when the token is in a slot, or is served no more."""
        await self._back.wait()

    def returned(self) -> None:
        """The token is in a slot (again)."""
        if self.state is TokenState.ABSENT:
            self.last_inserted = time.time()
        if not self.present:
            self._set_state(TokenState.PRESENT)
        self._back.set()

    def left(self) -> None:
        """The token is in no slot any more."""
        if self.state is not TokenState.ABSENT:
            self.last_removed = time.time()
            self._back.clear()
        self._set_state(TokenState.ABSENT, "it is in no slot")

    def cut_off(self, why: str) -> None:
        """The module cannot be asked. A token that is out stays out."""
        if self.state is not TokenState.ABSENT:
            self._set_state(TokenState.UNREACHABLE, why)

    def _logged_out(self) -> None:
        if self.state is TokenState.READY:
            self._set_state(TokenState.PRESENT)

    def _set_state(self, state: TokenState, why: str = "") -> None:
        if state is not self.state:
            log.info("token %s", state, extra={"token": str(self.identity), "why": why})
        changed = state is not self.state
        self.state, self.why = state, why
        if changed:
            self._changed()
