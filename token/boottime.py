"""The clock for lifetimes; unlike asyncio's, it goes on while the machine sleeps."""

from __future__ import annotations

import time


def boottime() -> float:
    """Seconds since boot, suspend included (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
