"""The lines of the documents that a newcomer types."""

from __future__ import annotations

from pathlib import Path

_PROMPT = "$ "


def typed(readme: Path, heading: str) -> list[list[str]]:
    """The commands in each of the examples under a heading, without what is said of them."""
    section = readme.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert section, f"the README has no section {heading!r}"
    examples = [text.partition("```")[0] for text in section.split("```console\n")[1:]]
    return [
        [
            line.removeprefix(_PROMPT).partition("  #")[0].rstrip()
            for line in example.splitlines()
            if line.startswith(_PROMPT)
        ]
        for example in examples
    ]
