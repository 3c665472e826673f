"""The lines of the README that a newcomer types."""

from __future__ import annotations

from pathlib import Path

_PROMPT = "$ "


def typed(readme: Path, heading: str) -> list[str]:
    """The commands in the first example under a heading."""
    _, _, section = readme.read_text().partition(f"\n## {heading}\n")
    assert section, f"the README has no section {heading!r}"
    example = section.partition("```console\n")[2].partition("```")[0]
    commands = [line.removeprefix(_PROMPT) for line in example.splitlines() if line.startswith(_PROMPT)]
    assert commands, f"the section {heading!r} shows no command"
    return commands
