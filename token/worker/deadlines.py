"""How long a worker may take for each kind of operation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

_MOST_TIMES = 10


@dataclass(frozen=True)
class Patience:
    """How long to wait for one answer, in seconds."""

    silence: float
    """Without a sign of life."""
    longest: float
    """In all: a module that does something for ever is hung, too."""


@dataclass(frozen=True)
class Deadlines:
    """How long a worker may be silent, in seconds, before it counts as hung."""

    operation: float = 20.0
    """Loading the module, scanning slots, reading keys, C_Login: card commands that wait for no user."""
    touch: float = 45.0
    """C_Sign, with the time to touch the token (a YubiKey gives up after 15, OpenSC asks twice)."""
    keypad: float = 90.0
    """C_Login on the token's own keypad."""

    @property
    def for_operation(self) -> Patience:
        """For what waits for no user. A slow card with many keys takes minutes to be read."""
        return Patience(self.operation, _MOST_TIMES * self.operation)

    def for_login(self, *, keypad: bool) -> Patience:
        """For C_Login; at the token's keypad the user takes the time."""
        return Patience(self.keypad, self.keypad + self.operation) if keypad else self.for_operation

    @cached_property
    def for_signature(self) -> Patience:
        """For C_Sign."""
        return Patience(self.touch, self.touch + self.operation)

    @cached_property
    def for_signature_at_keypad(self) -> Patience:
        """For C_Sign by a key that wants the PIN at every use, at the token's own keypad."""
        return Patience(self.touch + self.keypad, self.touch + self.keypad + self.operation)

    @property
    def doubled(self) -> Deadlines:
        """For the second attempt, which is not to fail like the first; users get no second turn."""
        return replace(self, operation=2 * self.operation)
