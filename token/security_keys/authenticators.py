"""What all FIDO authenticators have in common: helpers that are asked one after the other, and PIN tries.

An authenticator has eight tries, and takes no PIN after three wrong ones until it was taken out. Nobody can
say which authenticator a key is on before that has signed, so tries are counted for all of a library.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from replug.protocol.visible_text import visible_path
from replug.token.errors import TokenError
from replug.token.identity import TokenId
from replug.token.security_keys.helper import SkHelper
from replug.token.turns import FairSemaphore

INTERNAL = "internal"
"""The library that is in the helper."""
_MOST_WRONG = 2
_DEVICES = "/dev"
_DEVICE = "hidraw"

PluggedIn = frozenset[tuple[str, int]]
"""The devices that may be authenticators, each with the time when it came."""


class AuthenticatorId(TokenId):
    """Stands for the authenticators that a library shows."""

    @classmethod
    def of(cls, provider: str) -> AuthenticatorId:
        """Those of a library: its path, or `INTERNAL`."""
        return cls("", "security key", provider, "")

    def __str__(self) -> str:
        return "security key" if self.serial == INTERNAL else f"security key ({visible_path(self.serial)})"


def plugged_in() -> PluggedIn:
    """The devices that are plugged in now."""
    found = []
    with os.scandir(_DEVICES) as entries:
        for entry in entries:
            if entry.name.startswith(_DEVICE):
                try:
                    found.append((entry.name, entry.stat().st_ctime_ns))
                except OSError:  # just taken out
                    continue
    return frozenset(found)


class Authenticators:
    """Those of all libraries. `plugged_in` returns which devices there are."""

    def __init__(self, helper: SkHelper, plugged_in: Callable[[], PluggedIn]) -> None:
        self.helper = helper
        self.turn = FairSemaphore(1)
        """To be had while a helper runs: two would disturb each other at the same authenticator."""
        self._plugged_in = plugged_in
        self._wrong: dict[str, tuple[int, PluggedIn]] = {}
        """How many wrong PINs were sent since the last right one, and what was plugged in then."""

    def check_tries(self, provider: str) -> None:
        """Raise TokenError if another wrong PIN could lock the authenticator."""
        wrong, devices = self._wrong.get(provider, (0, frozenset()))
        if wrong >= _MOST_WRONG and devices == self._plugged_in():
            raise TokenError(
                f"{AuthenticatorId.of(provider)}: {wrong} wrong PINs were sent, and a third is not",
                "take it out and put it in; if that does not help, add the key again with ssh-add",
            )

    def refused_pin(self, provider: str) -> None:
        """Count a wrong PIN."""
        wrong, devices = self._wrong.get(provider, (0, frozenset()))
        now = self._plugged_in()
        self._wrong[provider] = (wrong + 1 if devices == now else 1, now)

    def accepted_pin(self, provider: str) -> None:
        """A PIN was right, or the user has begun again by adding a key: count from zero."""
        self._wrong.pop(provider, None)
