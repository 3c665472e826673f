"""OpenSSH's wildcard patterns and pattern lists."""

from __future__ import annotations

import re

_RUNS_OF_STARS = re.compile(r"\*+")


def matches(text: str, pattern: str) -> bool:
    """Whether the whole of `text` fits `pattern`, where `*` is any run of characters and `?` any one.

    Neither stops at a slash, and case counts (match.c match_pattern). Takes time in proportion to the length
    of the text: strangers choose both.
    """
    first, *others = _RUNS_OF_STARS.split(pattern)
    if sum(map(len, others), len(first)) > len(text):
        return False
    if not others:
        return len(text) == len(first) and _fits_at(text, 0, first)
    *between, last = others
    end = len(text) - len(last)
    if not (_fits_at(text, 0, first) and _fits_at(text, end, last)):
        return False
    position = len(first)
    # What stands between two stars may as well be where it comes first: that leaves the most for the rest.
    for part in between:
        found = _find(text, part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return position <= end


def matches_list(text: str, patterns: str) -> bool:
    """Whether `text` fits a comma-separated pattern list and none of its `!negated` patterns.

    A list of nothing but negated patterns allows nothing (match.c match_pattern_list).
    """
    if not patterns:
        return False
    allowed = False
    # A comma at the end closes the last pattern; it does not begin an empty one.
    for pattern in patterns.removesuffix(",").split(","):
        if pattern.startswith("!"):
            if matches(text, pattern[1:]):
                return False
        elif matches(text, pattern):
            allowed = True
    return allowed


def _fits_at(text: str, begin: int, part: str) -> bool:
    """Whether `part`, which has no star, fits at that place."""
    if "?" not in part:
        return text.startswith(part, begin)
    return all(wanted in ("?", found) for wanted, found in zip(part, text[begin:], strict=False))


def _find(text: str, part: str, begin: int, end: int) -> int:
    """Where `part`, which has no star, fits first between `begin` and `end`; -1 if nowhere."""
    if "?" not in part:
        return text.find(part, begin, end)
    # Shift-And: bit i says that the first i+1 characters of the part fit up to here. One step a character.
    anything = sum(1 << place for place, wanted in enumerate(part) if wanted == "?")
    accepted: dict[str, int] = {}
    for place, wanted in enumerate(part):
        accepted[wanted] = accepted.get(wanted, anything) | 1 << place
    whole, state = 1 << len(part) - 1, 0
    for place in range(begin, end):
        state = (state << 1 | 1) & accepted.get(text[place], anything)
        if state & whole:
            return place - len(part) + 1
    return -1
