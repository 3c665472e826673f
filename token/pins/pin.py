"""PINs in memory: one buffer each, wiped when forgotten, bound to the token they were entered for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary, WeakValueDictionary

from replug.protocol.secrets import wipe
from replug.token.boottime import boottime
from replug.token.identity import TokenFlag, TokenId
from replug.token.pins.lifetime import PinLifetime
from replug.token.pins.owner import PinOwner
from replug.token.pins.refused import RefusedPins
from replug.token.seal import Seal

_MOST_UNANSWERED = 2
LONGEST_PIN = 255
"""In bytes; CK_ULONG would allow more, no token does."""


@dataclass
class PinPast:
    """What has happened to a PIN so far; shared by all reads of it from the same file."""

    sent: bool = False
    """Whether it was sent to the token."""
    unanswered: int = 0
    """How often it was sent since the token accepted it last."""
    verified: bool = False
    """Whether the token accepted it."""
    rejected: bool = False
    """Whether the token refused it."""
    failure: str = ""
    """What went wrong when it was sent, if the answer said nothing about the PIN."""


class Pin:
    """A PIN in a buffer of our own.

    `last_try_known` if the user who typed it was told that it was the last try; `past` is what became of
    the same PIN before; `configured` if it is from a file or credential and was not typed; `chosen_now`
    if the user gave it knowing how many tries the token reports.
    """

    def __init__(
        self,
        value: bytearray | bytes,
        *,
        last_try_known: bool = False,
        past: PinPast | None = None,
        configured: bool = False,
        chosen_now: bool = True,
    ) -> None:
        self.value = value if isinstance(value, bytearray) else bytearray(value)
        self.last_try_known = last_try_known
        self.past = past or PinPast()
        self.configured = configured
        self._chosen_now = chosen_now
        self.may_be_kept = True
        """Whether it may be remembered; not if PINs were forgotten since it was given."""
        self.lifetime: PinLifetime | None = None
        """How long it is remembered; None is without limit."""
        self._sealed = b""

    @property
    def sent(self) -> bool:
        """Whether it was sent to the token."""
        return self.past.sent

    @property
    def verified(self) -> bool:
        """Whether the token accepted it."""
        return self.past.verified

    @property
    def expired(self) -> bool:
        """Whether it must no longer be used."""
        return self.lifetime is not None and self.lifetime.expired

    def may_be_sent(self, flags: TokenFlag, *, proven: bool) -> bool:
        """Whether this PIN may be sent to the token, whose `flags` have just been read.

        `proven` if the token has just shown a key that it had before. A PIN that was sent without an answer
        (the worker died meanwhile) may have cost a try, so it is not sent again; one that was accepted before
        is, once, and one from a file is, as there may be no user to ask. With a try missing there are two or
        more: one that was accepted before is sent once, if this is provably the same token. For the last try,
        the user must have been told. Not all modules report missing tries, so nothing else may depend on it.
        """
        if TokenFlag.USER_PIN_LOCKED in flags or not self.value or self.past.rejected:
            return False
        if TokenFlag.USER_PIN_FINAL_TRY in flags:
            return self.last_try_known and not self.sent
        if TokenFlag.USER_PIN_COUNT_LOW in flags:
            if self.verified:
                return proven and self.past.unanswered == 0
            return not self.sent and self._chosen_now
        if self.verified and not self.configured:
            return self.past.unanswered < _MOST_UNANSWERED
        return self.verified or not self.sent

    def __repr__(self) -> str:
        return f"<Pin verified={self.verified} sent={self.sent}>"

    def wipe(self) -> None:
        """Overwrite and empty the buffer."""
        wipe(self.value)
        self.value.clear()
        self._sealed = b""

    def seal(self, seal: Seal) -> None:
        """Keep it encrypted until `unseal`; it cannot be used meanwhile."""
        sealed = seal.seal(self.value) if self.value else b""
        self.wipe()
        self._sealed = sealed

    def unseal(self, seal: Seal) -> None:
        """Undo `seal`."""
        if self._sealed:
            self.value = seal.open(self._sealed)
            self._sealed = b""


class OneLogin(asyncio.Lock):
    """To be held while a PIN is sent to a token: two at once could spend two tries on a wrong one."""

    taken = 0
    """How often it was taken, by whichever module's token."""

    async def acquire(self) -> Literal[True]:
        """Take it, and count."""
        await super().acquire()
        self.taken += 1
        return True


class PinCache:
    """The PINs that tokens have accepted, kept for the session: one for each token, at whichever modules."""

    def __init__(self, remembered: Callable[[], None]) -> None:
        """`remembered` is called when a PIN was added."""
        self._remembered = remembered
        self.refused = RefusedPins(boottime)
        self._pins: dict[PinOwner, Pin] = {}
        self._by_keypad: WeakKeyDictionary[PinOwner, PinLifetime] = WeakKeyDictionary()
        """The logins by PINs that the agent has not seen, which end when it would forget these."""
        self._in_use: list[Pin] = []
        """Those that were given, and may not be remembered yet."""
        self._sealed = False
        self._logins: WeakValueDictionary[TokenId, OneLogin] = WeakValueDictionary()

    def one_login(self, token: TokenId) -> OneLogin:
        """The same for all modules that show `token`."""
        return self._logins.setdefault(token, OneLogin())

    def _owners(self, owner: PinOwner) -> list[PinOwner]:
        """The modules' views of the same token that PINs are kept for, `owner` first."""
        same = [other for other in self._pins if owner.is_same_token(other)]
        return sorted(same, key=lambda other: other is not owner)

    def _of(self, owner: PinOwner) -> Pin | None:
        pin = self._pins.get(owner)
        return pin if pin is not None else next((self._pins[other] for other in self._owners(owner)), None)

    def get(self, owner: PinOwner) -> Pin | None:
        """The PIN remembered for exactly this token, unless it has expired."""
        pin = self._of(owner)
        return None if pin is None or pin.expired else pin

    def has_expired(self, owner: PinOwner) -> bool:
        """Whether the PIN for this token has expired and is to be forgotten."""
        by_keypad = self._by_keypad.get(owner)
        if by_keypad is not None and by_keypad.expired:
            return True
        return any(self._pins[other].expired for other in self._owners(owner))

    def expires_at(self, owner: PinOwner) -> float | None:
        """When this token's PIN expires, on the boot clock; None if it never does, or there is none."""
        pin = self._of(owner)
        return None if pin is None or pin.lifetime is None else pin.lifetime.expires_at

    def next_expiry(self) -> float | None:
        """When the next PIN expires, on the boot clock; None is never."""
        lifetimes = [*(pin.lifetime for pin in self._pins.values()), *self._by_keypad.values()]
        ends = (one.expires_at for one in lifetimes if one is not None and one.limited)
        return min((end for end in ends if end is not None), default=None)

    def used(self, owner: PinOwner) -> None:
        """A key of the token was used, from which its PIN's idle time counts."""
        pin = self._of(owner)
        for lifetime in (None if pin is None else pin.lifetime, self._by_keypad.get(owner)):
            if lifetime is not None:
                lifetime.used()

    def by_keypad(self, owner: PinOwner) -> PinLifetime | None:
        """How long the login to this token lasts that was made with its keypad."""
        return self._by_keypad.get(owner)

    def logged_in_by_keypad(self, owner: PinOwner, lifetime: PinLifetime) -> None:
        """Have the login of this token end as if its PIN was remembered."""
        self._by_keypad[owner] = lifetime
        self._remembered()

    def remember(self, owner: PinOwner, pin: Pin) -> None:
        """Keep `pin` for this token, in place of an older one; not while the PINs are sealed."""
        if self._of(owner) is not pin and not self._sealed:
            self.forget(owner)
            self._pins[owner] = pin
            self._remembered()

    @property
    def sealed(self) -> bool:
        """Whether they are sealed, so that no PIN may be used at all."""
        return self._sealed

    @contextmanager
    def using(self, pin: Pin) -> Iterator[None]:
        """For a PIN that was given just now: it is wiped at the end unless it is remembered by then."""
        self._in_use.append(pin)
        try:
            yield
        finally:
            self._in_use.remove(pin)
            self.wipe_unless_kept(pin)

    def keep_none_in_use(self) -> None:
        """Remember none of the PINs in use: they were given before all were to be forgotten."""
        for pin in self._in_use:
            pin.may_be_kept = False

    def seal(self, seal: Seal) -> None:
        """Keep all of them encrypted, and no new ones; those in use are wiped, as nobody may send them."""
        self._sealed = True
        self.refused.seal(seal)
        for pin in self._in_use:
            self.wipe_unless_kept(pin)
        for pin in self._pins.values():
            pin.seal(seal)

    def unseal(self, seal: Seal) -> None:
        """Undo `seal`."""
        self._sealed = False
        self.refused.unseal(seal)
        for pin in self._pins.values():
            pin.unseal(seal)

    def forget_like(self, owner: PinOwner, rejected: Pin) -> None:
        """Wipe other PINs that equal a rejected one and are for what may be the same token, at any module."""
        for other, pin in list(self._pins.items()):
            alike = other.token.original == owner.token.original or owner.may_be_same_token(other)
            if alike and pin.value == rejected.value and pin is not rejected:
                self._pins.pop(other).wipe()

    def wipe_unless_kept(self, pin: Pin) -> None:
        """Wipe a PIN that is no longer needed, unless it is one of those remembered."""
        if not any(kept is pin for kept in self._pins.values()):
            pin.wipe()

    def forget(self, owner: PinOwner) -> bool:
        """Wipe the PIN of this token; returns whether there was one."""
        self._by_keypad.pop(owner, None)
        forgotten = [self._pins.pop(other) for other in self._owners(owner)]
        for pin in forgotten:
            pin.wipe()
        return bool(forgotten)
