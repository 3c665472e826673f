"""OpenSSH's wildcard patterns and pattern lists."""

from __future__ import annotations


def matches(text: str, pattern: str) -> bool:
    """Whether `pattern` matches all of `text`; `*` matches any run of characters and `?` any single one.

    Both match a slash too, and matching is case-sensitive (match.c match_pattern).
    """
    position = 0
    at = 0
    last_star = -1
    star_position = 0
    while position < len(text):
        if at < len(pattern) and pattern[at] == "*":
            last_star = at
            star_position = position
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", text[position]):
            position += 1
            at += 1
        elif last_star >= 0:
            # Only the last star needs backtracking: if an earlier one took more, the stars after it
            # would have less. That bounds the work by len(text) * len(pattern).
            star_position += 1
            position = star_position
            at = last_star + 1
        else:
            return False
    return pattern[at:].strip("*") == ""


def matches_list(text: str, patterns: str) -> bool:
    """Whether `text` matches a comma-separated pattern list and none of its `!negated` patterns.

    A list of only negated patterns matches nothing (match.c match_pattern_list).
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


class LimitedMatching:
    """`matches` with a limit on the work of all comparisons together; beyond it nothing matches.

    For texts and patterns that are both untrusted: the work is the product of their lengths, and two as
    long as a message would take minutes.
    """

    def __init__(self, most: int = 1_000_000) -> None:
        """`most` is the sum of the products of lengths, in characters; a million take some 60 ms."""
        self._left = most

    def matches(self, text: str, pattern: str) -> bool:
        """Whether `pattern` matches `text` within the limit."""
        if "*" not in pattern and "?" not in pattern:
            return text == pattern
        if pattern == "*":
            return True
        self._left -= (len(text) + 1) * len(pattern)
        return not self.at_limit and matches(text, pattern)

    @property
    def at_limit(self) -> bool:
        """Whether the limit is reached."""
        return self._left < 0
