"""The PINs that a token has refused lately, as marks: what is typed again by mistake is not sent again.

Some askpass programs answer by themselves, with what they have stored, and would spend all tries at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import blake2b

from replug.token.pins.pin import Pin

_REMEMBERED = 60.0  # seconds: by then the PIN of the token may be another one
_MARK_SIZE = 32  # bytes


class RefusedPins:
    """Those of one token. `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._key = os.urandom(_MARK_SIZE)
        self._marks: dict[bytes, float] = {}

    def add(self, pin: Pin) -> None:
        """The token has just refused `pin`."""
        if pin.value:
            self._marks[self._mark(pin)] = self._clock()

    def __contains__(self, pin: object) -> bool:
        """Whether the token has refused this PIN a moment ago."""
        if not isinstance(pin, Pin):
            return False
        now = self._clock()
        self._marks = {mark: when for mark, when in self._marks.items() if now < when + _REMEMBERED}
        return bool(self._marks) and self._mark(pin) in self._marks

    def clear(self) -> None:
        """The token has accepted a PIN."""
        self._marks.clear()

    def _mark(self, pin: Pin) -> bytes:
        # CPython wipes the state of such a hash.
        return blake2b(pin.value, key=self._key, digest_size=_MARK_SIZE).digest()
