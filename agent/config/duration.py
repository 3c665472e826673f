"""OpenSSH's time format: `90`, `1h30m`, `1w`."""

from __future__ import annotations

import re

_LONGEST = 2**31 - 1
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_TERM = r"([0-9]*\.[0-9]+|[0-9]+)([smhdwSMHDW]|\Z)"


def parse_duration(text: str) -> int:
    """Seconds in `text`: numbers, each followed by one of the units `smhdw` in either case.

    A last number without a unit is in seconds. Seconds may be given once, and may have a fraction, which is
    dropped (misc.c convtime). Raises ValueError for anything else, and for more than 2**31 - 1 seconds.
    """
    if not re.fullmatch(f"(?:{_TERM})+", text):
        raise ValueError(f"not a duration: {text!r}")
    total = 0.0
    seen_seconds = False
    for number, unit in re.findall(_TERM, text):
        multiplier = _UNITS[unit.lower()]
        if multiplier == 1:
            if seen_seconds:
                raise ValueError(f"seconds given twice: {text!r}")
            seen_seconds = True
        elif "." in number:
            raise ValueError(f"only seconds may have a fraction: {text!r}")
        total += float(number) * multiplier
    if total > _LONGEST:
        raise ValueError(f"longer than {_LONGEST} seconds: {text!r}")
    return int(total)


def format_duration(seconds: int) -> str:
    """`seconds` as `parse_duration` reads them, in the largest units: `1h30m`, `0s`."""
    text = ""
    for unit in ("w", "d", "h", "m"):
        count, seconds = divmod(seconds, _UNITS[unit])
        text += f"{count}{unit}" if count else ""
    return text if text and not seconds else f"{text}{seconds}s"
