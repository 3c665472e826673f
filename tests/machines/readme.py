"""The lines of the documents that a newcomer types."""

from __future__ import annotations

from pathlib import Path

_PROMPT = "$ "


def typed(readme: Path, heading: str, prompt: str = _PROMPT) -> list[list[str]]:
    """The commands in each of the examples under a heading, without what is said of them."""
    section = readme.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert section, f"{readme.name} has no section {heading!r}"
    examples = [text.partition("```")[0] for text in section.split("```console\n")[1:]]
    return [
        [
            line.removeprefix(prompt).partition("  #")[0].rstrip()
            for line in example.splitlines()
            if line.startswith(prompt)
        ]
        for example in examples
    ]
