"""Names that tokens, keys and programs have, as they stand in a question: on one line, short, and visible."""

from __future__ import annotations

import unicodedata

from replug.protocol.visible_text import BLANK, visible

_LONGEST = 80  # characters
_MOST_BYTES = 96  # pinentry takes 1000 for a whole question
_NO_MARKUP = str.maketrans(
    {
        "<": "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}",
        ">": "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}",
    }
)
"""Qt's dialogs take a text for HTML, all lines of it, if a tag or `&lt;` is in the first."""
_MOST_MARKS = 2  # in a row, as real scripts have them; a pile of them covers other lines


def shown(text: str) -> str:
    """Return `text` as it is if all of it can be seen, else in quotes and with escapes; cut if it is long."""
    text = unicodedata.normalize("NFC", text)
    if not _can_be_seen(text):
        return visible(text)
    if len(text) <= _LONGEST and _size(text) <= _MOST_BYTES:
        return text
    text = text[: _LONGEST - 1]
    while _size(text) > _MOST_BYTES - 3:
        text = text[:-1]
    return f"{text}\N{HORIZONTAL ELLIPSIS}"


def asked(text: str) -> str:
    """Return `text` as `shown` does, with other angle brackets: for the first line of a question."""
    return shown(text.replace("&lt;", "<").translate(_NO_MARKUP))


def _size(text: str) -> int:
    """Bytes in a command to pinentry."""
    return len(text.encode()) + 2 * text.count("%")


def _can_be_seen(text: str) -> bool:
    marks = 0
    for character in text:
        if not character.isprintable() or character in BLANK:
            return False
        marks = marks + 1 if unicodedata.category(character)[0] == "M" else 0
        if marks > _MOST_MARKS:
            return False
    return True
