"""How long what may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Deadlines:
    """How long a worker may take, in seconds, before it counts as hung."""

    operation: float = 20.0
    """Loading the module, looking at slots, reading keys, C_Login: card commands, no human."""
    touch: float = 45.0
    """C_Sign, with the time to touch the token (a YubiKey gives up after 15, OpenSC asks twice)."""
    keypad: float = 90.0
    """C_Login on the token's own keypad."""
