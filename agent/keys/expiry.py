"""Drops identities and forgets PINs when their lifetimes, on the boot clock, end."""

from __future__ import annotations

import asyncio
import logging

from replug.agent.keys.identities import Identities
from replug.agent.keys.modules import Modules
from replug.agent.keys.security_keys import SecurityKeys
from replug.agent.keys.software import SoftwareKeys
from replug.token.boottime import boottime
from replug.token.pins.pin import PinCache
from replug.token.security_keys.security_key import SecurityKey
from replug.token.serving.served import ServedToken

log = logging.getLogger(__name__)

_LONGEST_SLEEP = 60.0  # seconds; timers stop while the machine sleeps, lifetimes do not


class Expiry:
    """Has one timer for the next lifetime that ends."""

    def __init__(
        self,
        identities: Identities,
        software_keys: SoftwareKeys,
        security_keys: SecurityKeys,
        modules: Modules,
        pins: PinCache,
    ) -> None:
        self._identities = identities
        self._software_keys = software_keys
        self._security_keys = security_keys
        self._modules = modules
        self._pins = pins
        self._timer: asyncio.TimerHandle | None = None
        self._pin_end: float | None = None
        """When the next PIN expires, as of the last `plan`."""

    def drop_expired(self) -> None:
        """Drop identities and forget PINs whose lifetime has ended."""
        if self._pin_end is None and not self._identities.limited:
            return
        if self._identities.drop_expired():
            log.info("keys expired")
            self._software_keys.keep_only(held.blob for held in self._identities.software_keys())
            self._security_keys.keep_only(held.blob for held in self._identities.security_keys())
            self._modules.serve_what_is_added()
        if self._security_keys.forget_expired_pins():
            log.info("PIN of a security key expired")
        tokens = self._modules.tokens()
        # One PIN may be for a token at several modules, so all are asked before one of them forgets it.
        expired = [token for token in tokens if self._pins.has_expired(token.pin_owner)]
        for token in tokens:
            # A token that is just being added is about to be served for longer.
            over = token.pin_remembered and not self._modules.adding and self._identities.over(token)
            if over or token in expired:
                token.forget_pin()
                log.info("PIN expired", extra={"token": str(token.identity)})

    def plan(self) -> None:
        """Set the timer; to be called whenever a lifetime may have begun or changed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pin_end = self._pin_end = self._pins.next_expiry()
        if pin_end is None and not self._identities.limited:
            return
        ends = (self._identities.next_expiry(), None if pin_end is None else max(0.0, pin_end - boottime()))
        wait = min((end for end in ends if end is not None), default=None)
        if wait is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(min(wait, _LONGEST_SLEEP), self._expire)

    def pin_expires_in(self, holder: ServedToken | SecurityKey) -> float | None:
        """Seconds until the PIN of `holder` expires if it is not used before; None if it does not.

        A PIN is forgotten with the token's keys if their lifetime ends first.
        """
        end = self._pins.expires_at(holder.pin_owner)
        left = [] if end is None else [max(0.0, end - boottime())]
        lifetime = self._identities.lifetime_left(holder) if isinstance(holder, ServedToken) else None
        return min(left if lifetime is None else [*left, lifetime], default=None)

    def _expire(self) -> None:
        self.drop_expired()
        self.plan()
