"""What users and contributors read is plain technical English, without habits that make readers stop."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXTS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile")),
    *(path for path in (ROOT / "docs").rglob("*") if path.suffix in (".md", ".1", ".5", ".example")),
    *(path for folder in ("agent", "protocol", "token") for path in (ROOT / folder).rglob("*.py")),
]
HABITS = {
    "anew": "again",
    "in vain": "failed",
    "tells? of": "reports",
    "persons?": "user",
    "turns? away": "denies",
    "with less ado": "",
    "belongs? into": "belongs in",
    "no word of": "",
    "as far as": "if",
    "looks? in vain": "the scan failed",
}
"""Patterns of words, and what to write instead."""


@pytest.mark.parametrize("habit", HABITS)
def test_a_habit_is_dropped(habit: str) -> None:
    pattern = re.compile(rf"\b{habit}\b".replace(" ", r"[\s#]+"), re.IGNORECASE)
    wrong = [
        f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}"
        for path in TEXTS
        if path.exists()
        for text in [path.read_text()]
        for match in pattern.finditer(text)
    ]
    assert wrong == [], f"write {HABITS[habit]!r} or rephrase"
