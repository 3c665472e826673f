"""Formats output for its reader: the user at a terminal, or a program behind a pipe."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from dataclasses import dataclass
from typing import Literal, TextIO

Colour = Literal["bold", "dim", "red", "green", "yellow"]

_CODES: dict[Colour, str] = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "35"}
"""With eight colours: yellow cannot be read on white, so it is magenta."""
_CODES_OF_256: dict[Colour, str] = _CODES | {"red": "38;5;160", "green": "38;5;28", "yellow": "38;5;130"}
"""With 256: each can be read on black and on white."""
_LONGEST_LINE = 100  # columns; longer lines are hard to read


@dataclass(frozen=True)
class Style:
    """What the output may contain."""

    colours: bool
    """Whether to use colours at all."""
    unicode: bool
    width: int | None
    """Columns to fit in; None if the output is for programs, and lines are not wrapped."""
    many_colours: bool = False
    """Whether the terminal has 256 colours."""

    @classmethod
    def of(cls, stream: TextIO) -> Style:
        """The style for a stream: colours on a terminal unless $NO_COLOR is set (no-color.org).

        A stream that cannot encode every character is set to replace the others.
        """
        terminal = stream.isatty()
        encoding = (stream.encoding or "ascii").lower().replace("-", "")
        if encoding != "utf8" and (reconfigure := getattr(stream, "reconfigure", None)):
            reconfigure(errors="replace")
        return cls(
            colours=terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
            unicode=encoding == "utf8",
            many_colours="256color" in os.environ.get("TERM", "") or bool(os.environ.get("COLORTERM")),
            width=min(shutil.get_terminal_size().columns, _LONGEST_LINE) if terminal else None,
        )

    @classmethod
    def of_output(cls) -> Style:
        """The style for standard output."""
        return cls.of(sys.stdout)

    @property
    def arrow(self) -> str:
        """What stands before something to do."""
        return "\N{RIGHTWARDS ARROW}" if self.unicode else "->"

    def paint(self, text: str, *colours: Colour) -> str:
        """`text` in these colours, if colours are used."""
        if not self.colours or not colours:
            return text
        codes = _CODES_OF_256 if self.many_colours else _CODES
        return f"\x1b[{';'.join(codes[colour] for colour in colours)}m{text}\x1b[0m"

    def wrap(self, text: str, *, first: str = "", rest: str = "") -> list[str]:
        """`text` wrapped into lines, with `first` before the first and `rest` before the others."""
        if self.width is None:
            return [first + text]
        lines = textwrap.wrap(
            text,
            max(self.width, 30),
            initial_indent=first,
            subsequent_indent=rest,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return lines or [first]

    def shorten(self, text: str, room: int) -> str:
        """`text` cut to `room` columns; unchanged if lines are not wrapped."""
        if self.width is None or len(text) <= room:
            return text
        mark = "\N{HORIZONTAL ELLIPSIS}" if self.unicode else "..."
        return text[: max(0, room - len(mark))] + mark
