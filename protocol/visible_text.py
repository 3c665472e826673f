"""Text that strangers chose, written so that it can neither look like our words nor hide them."""

from __future__ import annotations

LONGEST = 64
"""Characters that are shown of a text, escapes included."""
_LONGEST_PATH = 160
"""Of a path or a URI; those of modules are shorter."""
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@%+=:/*?![]-")
_ESCAPED = {'"': '\\"', "\\": "\\\\"}
_VARIATIONS = (*range(0xFE00, 0xFE0E), *range(0xE0100, 0xE01F0))
"""Of Chinese characters and others; not the last two, which make emoji of signs."""
BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0") | {
    *map(chr, _VARIATIONS)
}
"""Characters that show as nothing though Unicode counts them among letters, marks and symbols."""
_SURROGATES = range(0xDC80, 0xDD00)


def visible(text: str | bytes, longest: int = LONGEST) -> str:
    r"""Return the text in printable ASCII: a name as it is, anything else in double quotes with escapes.

    Blanks and look-alikes become visible: `"\u2800"`. What is longer than `longest` characters is cut and
    its length said: `"aaa..." (105 characters)`. Bytes are taken for UTF-8; those that are not become `\xff`.
    """
    if isinstance(text, bytes):
        text = text.decode(errors="surrogateescape")
    if len(text) <= longest and text and _PLAIN.issuperset(text):
        return text
    shown: list[str] = []
    room = longest
    for character in text[: longest + 1]:
        piece = _escape(character)
        room -= len(piece)
        if room < 0:
            return f'"{"".join(shown)}..." ({len(text)} characters)'
        shown.append(piece)
    return f'"{"".join(shown)}"'


def visible_path(text: str) -> str:
    """Return a path or a URI as `visible` does."""
    return visible(text, _LONGEST_PATH)


def _escape(character: str) -> str:
    if " " <= character <= "~":
        return _ESCAPED.get(character, character)
    number = ord(character)
    if number in _SURROGATES:  # a byte that is not UTF-8
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
