"""Ages and times of day in the agent's answers, for display."""

from __future__ import annotations

import time

_DAY = 86400
_LAST_DATE = 253_370_764_799  # seconds since the epoch: the end of the year 9998, wherever that is


def how_long(seconds: float) -> str:
    """A duration in its largest unit, rounded down: `59 s`, `3 min`, `2 h`, `5 days`."""
    whole = max(0, int(seconds))
    for length, unit in ((_DAY, "days"), (3600, "h"), (60, "min")):
        if whole >= length:
            count = whole // length
            return f"{count} {'day' if unit == 'days' and count == 1 else unit}"
    return f"{whole} s"


def how_long_ago(when: float, now: float) -> str:
    """`3 min ago`, from two times in seconds since the epoch; `just now` if the clock was set back."""
    return f"{how_long(now - when)} ago" if now - when >= 1 else "just now"


def clock(when: float, now: float) -> str:
    """The local time of day, with the date if that is not today."""
    moment, today = time.localtime(when), time.localtime(now)
    same_day = (moment.tm_year, moment.tm_yday) == (today.tm_year, today.tm_yday)
    return time.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S", moment)


def minute(when: float, said: float | None = None) -> str:
    """The local date and time of day in minutes, without the date if it is that of the time `said` before."""
    if when > _LAST_DATE:
        return "the year 9999 or later"
    moment = time.localtime(when)
    same_day = said is not None and said <= _LAST_DATE and time.localtime(said)[:3] == moment[:3]
    return time.strftime("%H:%M" if same_day else "%Y-%m-%d %H:%M", moment)
