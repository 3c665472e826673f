"""How long a worker may take for each kind of operation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Deadlines:
    """How long a worker may take, in seconds, before it counts as hung."""

    operation: float = 20.0
    """Loading the module, scanning slots, reading keys, C_Login: card commands that wait for no user."""
    touch: float = 45.0
    """C_Sign, with the time to touch the token (a YubiKey gives up after 15, OpenSC asks twice)."""
    keypad: float = 90.0
    """C_Login on the token's own keypad."""
