"""Finds what tomllib would be busy with for minutes: it takes the square of the number of parts of a key."""

from __future__ import annotations

import re

MOST_PARTS = 16
"""Of a dotted key or a table's name; no key that is known has more than two."""
# Strings and comments. A string that does not end goes on to the end of the text, as tomllib reads no
# further: so each matches where it begins, whatever follows, and nothing is tried twice.
_OPAQUE = re.compile(
    r'"""(?:[^"\\]+|\\.?|"{1,2}(?!"))*(?:"{3,5}|\Z)|\'\'\'(?:[^\']+|\'{1,2}(?!\'))*(?:\'{3,5}|\Z)'
    r'|"(?:[^"\\]+|\\.?)*(?:"|\Z)|\'[^\']*(?:\'|\Z)|#[^\n]*',
    re.DOTALL,
)
_LONG_KEY = re.compile(rf'(?<![A-Za-z0-9_"-])(?:[A-Za-z0-9_"-]++[ \t]*+\.[ \t]*+){{{MOST_PARTS},}}')


def line_of_long_key(text: str) -> int | None:
    """The line of the first key of too many parts, counted from 1; None if there is none.

    `text` need not be valid TOML: up to its first error this reads it as tomllib does. Takes time linear in
    its length.
    """
    found = _LONG_KEY.search(_OPAQUE.sub(_emptied, text))
    return None if found is None else found.string.count("\n", 0, found.start()) + 1


def _emptied(found: re.Match[str]) -> str:
    """In place of a string an empty one, which may be a part of a key; as many lines as before."""
    quotes = "" if found[0].startswith("#") else '""'
    return quotes + "\n" * found[0].count("\n")
