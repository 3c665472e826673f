"""The documents name files that exist, and are complete where completeness can be checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "docs/architecture.md",
    "docs/bastion.md",
    "docs/benchmarks.md",
    "docs/clients.md",
    "docs/security.md",
    "docs/tokens.md",
    "docs/tried.md",
]
OURS = ("agent", "docs", "packaging", "protocol", "systemd", "tests", "token")
# Within a sentence about a folder what is in it may go by its name there.
NEAR = ("", "agent/", "token/", "tests/")


def files_named(text: str) -> list[str]:
    """What stands in backquotes or in a link and is a path in this repository, by the look of it."""
    quoted = re.findall(r"`([\w./@-]+)`", text)
    paths = [name for name in quoted if "/" in name and name.endswith((".py", ".1", ".5", ".example", "/"))]
    paths += [name for name in quoted if name.split("/")[0] in OURS and "/" in name]
    return paths + re.findall(r"\]\((?!http)([^)#]+)\)", text)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_is_named_exists(document: str) -> None:
    path = ROOT / document
    missing = [
        name
        for name in files_named(path.read_text(encoding="utf-8"))
        if not any((ROOT / near / name).exists() for near in NEAR) and not (path.parent / name).exists()
    ]
    assert missing == []


def test_architecture_has_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = [file for folder in ("agent", "token", "protocol") for file in (ROOT / folder).rglob("*.py")]
    rooms = {f"`{file.parent.relative_to(ROOT)}/`" for file in files}
    assert [room for room in sorted(rooms) if room not in text] == []


def test_the_newest_release_in_the_changelog_is_this_one() -> None:
    released = re.findall(
        r"^## ([\d.]+) \(\d{4}-\d\d-\d\d\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{released[0]}"' in project
