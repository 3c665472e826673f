"""The chart of docs/benchmarks.md: how many times as fast as OpenSSH's agent, by the keys on the token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from bench.figures import Figure
from bench.loads import KEYS, LOADS

_ROW, _BAR, _LEFT, _WIDTH, _TOP = 54, 14, 250, 520, 46
_LOWEST, _HIGHEST = 0.25, 32.0
_COLOURS = ("#9ec5e8", "#4f93c8", "#1d5d91")
_STYLE = """
  text { font: 13px sans-serif; fill: #333; } line { stroke: #bbb; } .even { stroke: #c33; }
  @media (prefers-color-scheme: dark) { text { fill: #ddd; } line { stroke: #555; } .even { stroke: #e66; } }
"""


def drawn(figures: Sequence[Figure]) -> str:
    """An SVG image with a bar for each load and number of keys, on a logarithmic scale."""
    wanted = {f"{load}: {'p50' if load.clients == 1 else 'throughput'}": str(load) for load in LOADS}
    found: dict[str, dict[int, float]] = {name: {} for name in wanted}
    for figure in figures:
        ratio = figure.ratio("replug")
        if figure.what in wanted and figure.keys in KEYS and ratio:
            found[figure.what][figure.keys] = 1 / ratio if figure.what.endswith("p50") else ratio
    height = _TOP + _ROW * len(wanted) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 60} {height}" '
        f'width="{_LEFT + _WIDTH + 60}" height="{height}">\n<style>{_STYLE}</style>',
        '<text x="10" y="20">How many times as fast as OpenSSH\'s agent, by the keys on the token</text>',
    ]
    for number, keys in enumerate(KEYS):
        x = _LEFT + 110 * number
        parts.append(f'<rect x="{x}" y="28" width="12" height="12" fill="{_COLOURS[number]}"/>')
        parts.append(f'<text x="{x + 18}" y="39">{keys} key{"s" if keys > 1 else ""}</text>')
    bottom = height - 24
    mark = _LOWEST
    while mark <= _HIGHEST:
        style = ' class="even"' if mark == 1 else ""
        parts.append(f'<line{style} x1="{_x(mark):.0f}" x2="{_x(mark):.0f}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{_x(mark) - 10:.0f}" y="{bottom + 16}">{mark:g}x</text>')
        mark *= 2
    for row, (what, label) in enumerate(wanted.items()):
        top = _TOP + _ROW * row + 5
        parts.append(f'<text x="10" y="{top + 26}">{escape(label)}</text>')
        for number, keys in enumerate(KEYS):
            ratio = found[what].get(keys)
            if ratio is None:
                continue
            begin, end = sorted((_x(1), _x(ratio)))
            y = top + (_BAR + 1) * number
            parts.append(
                f'<rect x="{begin:.1f}" y="{y}" width="{max(1.0, end - begin):.1f}" height="{_BAR}" '
                f'fill="{_COLOURS[number]}"/>'
            )
            parts.append(f'<text x="{_x(max(1, ratio)) + 5:.1f}" y="{y + 12}">{ratio:.2f}x</text>')
    return "\n".join([*parts, "</svg>\n"])


def _x(ratio: float) -> float:
    share = math.log(ratio / _LOWEST) / math.log(_HIGHEST / _LOWEST)
    return _LEFT + _WIDTH * min(1.0, max(0.0, share))
