"""Overwriting secrets in place, in one file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from replug.protocol.secrets import copy_over, wipe

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("part", "left"),
    [((), bytes(6)), ((2,), b"se\0\0\0\0"), ((2, 4), b"se\0\0et"), ((3, 3), b"secret"), ((0, 6), bytes(6))],
)
def test_wiping_is_in_place(part: tuple[int, ...], left: bytes) -> None:
    buffer = bytearray(b"secret")
    with memoryview(buffer) as same:
        wipe(buffer, *part)
        assert same == left


def test_what_cannot_be_wiped_is_refused() -> None:
    with pytest.raises(TypeError):
        wipe(b"secret")  # type: ignore[arg-type]


def test_copying_leaves_the_rest_as_it_was() -> None:
    target = bytearray(b"......")
    copy_over(bytearray(b"a secret"), 2, 6, target)
    assert target == b"secr.."


def test_nothing_is_wiped_elsewhere() -> None:
    overwriting = re.compile(r"\[[^\]]*\] = (bytes|bytearray)\(")
    found = [
        str(path.relative_to(ROOT))
        for folder in ("agent", "protocol", "token")
        for path in (ROOT / folder).rglob("*.py")
        if overwriting.search(path.read_text())
    ]
    assert found == ["protocol/secrets.py"]
