"""Strangers' text in our lines: blanks, look-alikes, quotes and lengths that would hide something."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replug.protocol.visible_text import LONGEST, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("root", "root"),
        ("alice@EXAMPLE.com", "alice@EXAMPLE.com"),
        ("[10.0.0.5]:2222", "[10.0.0.5]:2222"),
        ("", '""'),
        ("a b", '"a b"'),
        ("a, as root", '"a, as root"'),
        ('"', r'"\""'),
        ("\\u2800", r'"\\u2800"'),
        ("\u2800", r'"\u2800"'),
        ("r\u043e\u043et", r'"r\u043e\u043et"'),
        ("\u202eevil", r'"\u202eevil"'),
        ("\U0001f511", r'"\U0001f511"'),
        ("a\n\x1b[2J\x7f", r'"a\x0a\x1b[2J\x7f"'),
        (b"caf\xc3\xa9", r'"caf\u00e9"'),
        (b"caf\xe9", r'"caf\xe9"'),
        ("a" * LONGEST, "a" * LONGEST),
        ("a" * (LONGEST + 1), f'"{"a" * LONGEST}..." ({LONGEST + 1} characters)'),
        ("\u2800" * 105, f'"{chr(92) + "u2800"}' + r"\u2800" * 9 + '..." (105 characters)'),
    ],
)
def test_what_is_shown(text: str | bytes, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(st.characters()) | st.binary(), st.integers(10, 80))
def test_it_is_short_and_printable_ascii(text: str | bytes, longest: int) -> None:
    shown = visible(text, longest)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= longest + len('"..." (99999 characters)')


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), st.text(max_size=12))
def test_no_two_texts_look_alike(text: str, other: str) -> None:
    assert (visible(text, 1000) == visible(other, 1000)) == (text == other)


@given(st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs", "Cc"]), max_size=40))
def test_it_can_be_read_back(text: str) -> None:
    shown = visible(text, 1000)
    assert (json.loads(shown.replace("\\x", "\\u00")) if shown.startswith('"') else shown) == text
