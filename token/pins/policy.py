"""The PIN policy of one token: where the PIN comes from, and when it is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from replug.token.identity import TokenId
from replug.token.pins.lifetime import ForgetOn
from replug.token.pins.source import ConfiguredPin


@dataclass(frozen=True)
class PinPolicy:
    """By default the user is asked for the PIN, and it is kept for the session."""

    source: ConfiguredPin | None = None
    """Where it is read when none is remembered; None: the user is asked."""
    time_to_live: float | None = None
    """Seconds since it was entered; None is without limit."""
    idle_time: float | None = None
    """Seconds since the last use; None is without limit."""
    forget_on: frozenset[ForgetOn] = frozenset()


PolicyOf: TypeAlias = Callable[[TokenId], PinPolicy]
"""Returns the current policy, which may change while the agent runs."""
