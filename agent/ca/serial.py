"""The serial numbers of certificates: the time, so they sort, and need no file that could be lost."""

from __future__ import annotations

import time


def serial_at(now: float) -> int:
    """The number for a certificate that is made at this time: yymmddhhmmss, in UTC, and milliseconds."""
    return int(time.strftime("%y%m%d%H%M%S", time.gmtime(now)) + f"{int(now * 1000) % 1000:03}")
