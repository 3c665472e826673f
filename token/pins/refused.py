"""The PINs that tokens have refused, as marks, whoever has removed and added a token since.

What is typed again by mistake is not sent again: some askpass programs answer by themselves, with what they
have stored, and would spend all tries at once. What a file holds is never sent again.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from replug.protocol.secrets import wipe
from replug.token.pins.owner import PinOwner
from replug.token.seal import Seal

_REMEMBERED = 60.0  # seconds: by then the PIN of the token may be another one
_MARK_SIZE = 32  # bytes
_MOST = 256
ENTERED_AGAIN = (
    "the wrong PIN was entered again, and not sent again",
    "try again with the right PIN; if it is the right one, in a minute",
)
"""The reason and the next step when a PIN was refused lately."""


@dataclass
class _Refused:
    """A PIN, by its mark, and the token that has refused it, as that was then."""

    owner: PinOwner
    mark: bytes
    lately_until: float


@dataclass
class _Keys:
    """Those that a token had when it refused a PIN."""

    known: set[bytes]
    proven: bool = False


class RefusedPins:
    """Those of all tokens. `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._key = bytearray(os.urandom(_MARK_SIZE))
        """Of the marks; empty while it is sealed. Who has it finds a PIN by its mark, as PINs are short."""
        self._sealed_key = b""
        self._refused: deque[_Refused] = deque(maxlen=_MOST)

    def add(self, owner: PinOwner, pin: bytearray, *, lately: bool) -> None:
        """This token has just refused `pin`; `lately` if it counts when it is entered again."""
        if pin and self._key:
            then = PinOwner(owner.module, owner.token, _Keys(set(owner.keys.known)))
            until = self._clock() + _REMEMBERED if lately else 0.0
            self._refused.append(_Refused(then, self._mark(pin), until))

    def accepted(self, owner: PinOwner, pin: bytearray) -> None:
        """This token has accepted `pin`: the others may be tried again by who types them."""
        mark = self._mark(pin)
        for one in [one for one in self._refused if owner.may_be_same_token(one.owner)]:
            one.lately_until = 0.0
            if one.mark == mark:
                self._refused.remove(one)

    def lately(self, owner: PinOwner, pin: bytearray) -> bool:
        """Whether this token, by whichever module, has refused this PIN a moment ago."""
        now = self._clock()
        return any(now < one.lately_until for one in self._like(owner, pin))

    def ever(self, owner: PinOwner, pin: bytearray) -> bool:
        """Whether it has refused this PIN at any time, and not accepted it since."""
        return bool(self._like(owner, pin))

    def seal(self, seal: Seal) -> None:
        """Have the marks tell nothing until `unseal`: a wrong PIN may be the right one of another token."""
        self._sealed_key = seal.seal(self._key)
        wipe(self._key)
        self._key.clear()

    def unseal(self, seal: Seal) -> None:
        """Undo `seal`."""
        self._key = seal.open(self._sealed_key)

    def _like(self, owner: PinOwner, pin: bytearray) -> list[_Refused]:
        if not self._refused or not pin or not self._key:
            return []
        mark = self._mark(pin)
        return [one for one in self._refused if one.mark == mark and owner.may_be_same_token(one.owner)]

    def _mark(self, pin: bytearray) -> bytes:
        # CPython wipes the state of such a hash.
        return blake2b(pin, key=self._key, digest_size=_MARK_SIZE).digest()
