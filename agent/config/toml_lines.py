"""Finds the line of each key in a TOML document, which tomllib does not report.

The document must be valid, so tomllib parses it first; the scanner then only skips over values.
"""

from __future__ import annotations

import re
import tomllib
from typing import TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]
"""Names of tables and keys, and indices in lists: `("token", 0, "uri")`."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_NAME = re.compile(r"""[ \t]*([A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')[ \t]*""")
# The long ones first; a string in three quotes may end in one or two more of them.
_STRING = re.compile(
    r'''"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}|\'\'\'(?:[^']|'{1,2}(?!'))*'{3,5}'''
    r"""|"(?:[^"\\]|\\.)*"|'[^']*'""",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\r\n]+")


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line of every key, table and element of a list in `text`, counted from 1.

    A table that is in several places has the line of the first.
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._text = text
        self._at = 0
        self._line = 1
        self._counted = 0  # up to where lines are counted
        self._array_lengths: dict[KeyPath, int] = {}

    def document(self) -> None:
        table: KeyPath = ()
        while self._skip_blank():
            if self._text.startswith("[[", self._at):
                table = self._header(2)
            elif self._text[self._at] == "[":
                table = self._header(1)
            else:
                self._pair(table)

    def _header(self, brackets: int) -> KeyPath:
        line = self._now()
        self._at += brackets
        names = self._key()
        self._at += brackets
        path: KeyPath = ()
        for name in names[:-1]:
            path = self._inside((*path, name), line)
        path = (*path, names[-1])
        if brackets == 1:
            return self._inside(path, line)
        self.lines.setdefault(path, line)
        place = self._array_lengths.get(path, 0)
        self._array_lengths[path] = place + 1
        self.lines[(*path, place)] = line
        return (*path, place)

    def _inside(self, path: KeyPath, line: int) -> KeyPath:
        """The path of the table at `path`; of an array of tables it is the last one, as in TOML."""
        self.lines.setdefault(path, line)
        length = self._array_lengths.get(path)
        return path if length is None else (*path, length - 1)

    def _pair(self, table: KeyPath) -> None:
        line = self._now()
        path = table
        for name in self._key():
            path = (*path, name)
            self.lines.setdefault(path, line)
        self._at += 1  # the equals sign
        self._value(path)

    def _key(self) -> list[str]:
        names = []
        while True:
            found = _NAME.match(self._text, self._at)
            assert found, "tomllib has read this key"
            self._at = found.end()
            names.append(_unquoted(found[1]))
            if not self._text.startswith(".", self._at):
                return names
            self._at += 1

    def _value(self, path: KeyPath) -> None:
        self._skip_blank()
        start = self._text[self._at]
        if start == "[":
            self._array(path)
        elif start == "{":
            self._inline_table(path)
        else:
            found = (_STRING if start in "\"'" else _SCALAR).match(self._text, self._at)
            assert found, "tomllib has read this value"
            self._at = found.end()

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        place = 0
        while self._next_until("]"):
            self.lines[(*path, place)] = self._now()
            self._value((*path, place))
            place += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while self._next_until("}"):
            self._pair(path)

    def _next_until(self, end: str) -> bool:
        """Move to the next element of a list or table; returns False after its `end`."""
        self._skip_blank()
        if self._text[self._at] == ",":
            self._at += 1
            self._skip_blank()
        if self._text[self._at] != end:
            return True
        self._at += 1
        return False

    def _skip_blank(self) -> bool:
        """Skip white space and comments; returns whether anything is left."""
        found = _BLANK.match(self._text, self._at)
        assert found
        self._at = found.end()
        return self._at < len(self._text)

    def _now(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line


def _unquoted(name: str) -> str:
    if name[0] not in "\"'":
        return name
    value = tomllib.loads(f"name = {name}")["name"]
    assert isinstance(value, str)
    return value
