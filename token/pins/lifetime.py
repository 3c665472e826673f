"""How long a remembered PIN is kept: for some time, or until an event."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class ForgetOn(StrEnum):
    """An event that can make the agent forget a PIN."""

    REMOVAL = "removal"  # the token is pulled out
    SCREEN_LOCK = "screen-lock"
    SUSPEND = "suspend"


class PinLifetime:
    """When a remembered PIN expires: `time_to_live` after it was entered, `idle_time` after its last use.

    Both are in seconds, None is never. `clock` is CLOCK_BOOTTIME in seconds: other clocks stop while the
    machine sleeps, and a laptop closed in the evening would still have the PIN in the morning.
    """

    def __init__(
        self, time_to_live: float | None, idle_time: float | None, clock: Callable[[], float]
    ) -> None:
        """Both times start now."""
        self.change(time_to_live, idle_time)
        self._clock = clock
        self._entered = self._used = clock()

    def change(self, time_to_live: float | None, idle_time: float | None) -> None:
        """Apply other times, from the same start."""
        self._time_to_live = time_to_live
        self._idle_time = idle_time
        self.limited = time_to_live is not None or idle_time is not None

    def used(self) -> None:
        """A key of the token was used: the idle time starts again, unless the PIN has expired."""
        if not self.limited or not self.expired:
            self._used = self._clock()

    @property
    def expires_at(self) -> float | None:
        """The time on `clock` when it expires if it is not used before; None is never."""
        if self._time_to_live is None and self._idle_time is None:
            return None
        ends = [
            since + seconds
            for since, seconds in ((self._entered, self._time_to_live), (self._used, self._idle_time))
            if seconds is not None
        ]
        return min(ends, default=None)

    @property
    def expired(self) -> bool:
        """Whether it must be forgotten now."""
        end = self.expires_at
        return end is not None and self._clock() >= end
