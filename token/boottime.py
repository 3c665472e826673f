"""The clock for lifetimes; unlike asyncio's, it goes on while the machine sleeps."""

from __future__ import annotations

import time
from functools import partial

boottime = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Returns the seconds since boot, suspend included."""
