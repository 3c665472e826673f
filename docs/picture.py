"""The README's picture of the demonstration: `make picture`.

Reads what `make demo` prints on standard input and writes an SVG image: what was typed and seen when the card
was pulled out and put back, with OpenSSH's agent and with replug. What differs each time is made the same.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from xml.sax.saxutils import escape

COLUMN, ROW = 8.2, 20  # of text, in pixels
MARGIN, TITLE, GAP = 16, 34, 18
COLUMNS = 102
FONTS = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
BACKGROUND, BAR, TEXT = "#1b1f26", "#2b313b", "#d7dce4"
COLOURS = {"typed": "#ffffff", "said": "#e8c069", "refused": "#ff8f85", "works": "#86d89a", "": TEXT}
ALIKE = (
    (r"^Agent pid \d+", "Agent pid 4711"),
    (r"^(Hello, )\S+$", r"\1you"),
    (r"^\S+@host:", "you@host:"),
    (r" -F host\.ssh_config", ""),  # which keeps the user's own files out
    (r" +<- typed, not shown: .*", ""),
    (r"/usr/lib/\S+-linux-gnu\S*/", "/usr/lib/x86_64-linux-gnu/"),
)


class NotSeenError(Exception):
    """The demonstration did not show the card."""


@dataclass(frozen=True)
class Screen:
    """A terminal and what is on it."""

    title: str
    lines: list[str]

    @property
    def height(self) -> int:
        """In pixels."""
        return TITLE + len(self.lines) * ROW + MARGIN


def screens(demo: str) -> list[Screen]:
    """The terminals of both agents, from what the demonstration printed. NotSeenError."""
    found = re.findall(r"^# With (\S+):\n\n(.*?)\n+\$ eval \$\(\1 -k\)", demo, re.MULTILINE | re.DOTALL)
    if [agent for agent, _ in found] != ["ssh-agent", "replug-agent"]:
        raise NotSeenError("the demonstration did not show what becomes of a card that is pulled out")
    return [Screen(agent, [_alike(line) for line in text.splitlines() if line]) for agent, text in found]


def _alike(line: str) -> str:
    for pattern, replacement in ALIKE:
        line = re.sub(pattern, replacement, line)
    return line


def draw(shown: list[Screen]) -> str:
    """The image."""
    width = round(COLUMNS * COLUMN) + 2 * MARGIN
    height = sum(screen.height for screen in shown) + GAP * (len(shown) - 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img" font-family="{FONTS}" font-size="13.5">',
        "<title>A card is pulled out and put back: ssh with ssh-agent, and with replug-agent</title>",
    ]
    top = 0
    for screen in shown:
        parts += _drawn(screen, top, width)
        top += screen.height + GAP
    return "\n".join([*parts, "</svg>"]) + "\n"


def _drawn(screen: Screen, top: int, width: int) -> list[str]:
    parts = [
        f'<rect y="{top}" width="{width}" height="{screen.height}" rx="8" fill="{BACKGROUND}"/>',
        f'<path d="M0 {top + 26}v-18a8 8 0 0 1 8 -8h{width - 16}a8 8 0 0 1 8 8v18z" fill="{BAR}"/>',
        _text(screen.title, MARGIN, top + 18, TEXT),
    ]
    for number, line in enumerate(screen.lines):
        y = top + TITLE + 14 + number * ROW
        if line.startswith("$ "):
            parts += [
                _text("$", MARGIN, y, COLOURS["works"]),
                _text(line[2:], MARGIN + 2 * COLUMN, y, COLOURS["typed"]),
            ]
        else:
            parts.append(_text(line, MARGIN, y, COLOURS[_kind(line)]))
    return parts


def _kind(line: str) -> str:
    if "refused" in line or "denied" in line:
        return "refused"
    return "said" if line.startswith("# ") else "works" if line.startswith("Hello") else ""


def _text(text: str, x: float, y: int, colour: str) -> str:
    # The width is given: whatever font there is, columns are columns.
    return (
        f'<text x="{x:g}" y="{y}" fill="{colour}" textLength="{len(text) * COLUMN:g}" xml:space="preserve">'
        f"{escape(text)}</text>"
    )


if __name__ == "__main__":
    sys.stdout.write(draw(screens(sys.stdin.read())))
