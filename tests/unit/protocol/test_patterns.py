"""Wildcard patterns and pattern lists."""

from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replug.protocol.patterns import matches, matches_list


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("", ""),
        ("", "*"),
        ("", "**"),
        ("a", "?"),
        ("abc", "abc"),
        ("abc", "a*"),
        ("abc", "*c"),
        ("abc", "*b*"),
        ("abc", "???"),
        ("abc", "?*?"),
        ("aXbXbc", "a*bc"),
        ("aab", "*ab"),
        ("abcabd", "*ab?"),
        ("/usr/lib/a/b.so", "/usr/lib*/*"),
        ("/usr/lib64/x.so", "/usr/lib*/*"),
        ("a*", "a*"),
        ("[a]", "[a]"),
    ],
)
def test_matching(text: str, pattern: str) -> None:
    assert matches(text, pattern)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("a", ""),
        ("", "?"),
        ("", "*?"),
        ("abc", "ab"),
        ("abc", "bc"),
        ("abc", "abcd"),
        ("abc", "??"),
        ("abc", "????"),
        ("abc", "ABC"),
        ("abc", "*b"),
        ("ab", "*a?*b"),
        ("a", "[a]"),
        ("/opt/lib/x.so", "/usr/lib*/*"),
        ("/usr/lib", "/usr/lib*/*"),
    ],
)
def test_not_matching(text: str, pattern: str) -> None:
    assert not matches(text, pattern)


@given(st.text("ab", max_size=12), st.text("ab*?", max_size=8))
def test_agrees_with_the_shell_patterns_of_the_standard_library(text: str, pattern: str) -> None:
    assert matches(text, pattern) == fnmatch.fnmatchcase(text, pattern)


@pytest.mark.timeout(20)
def test_many_stars_do_not_explode() -> None:
    assert not matches("a" * 2000, "a*" * 200 + "b")


@pytest.mark.parametrize(
    ("text", "patterns", "allowed"),
    [
        ("a", "a", True),
        ("b", "a,b", True),
        ("c", "a,b", False),
        ("a", "", False),
        ("", "", False),
        ("", ",", True),
        ("", "a,", False),
        ("", "a,,", True),
        ("a", ",a", True),
        ("ab", "a*,!ab", False),
        ("ab", "!ab,a*", False),
        ("ac", "a*,!ab", True),
        ("c", "!ab", False),
        ("", "*,!", False),
        ("a", "*,!", True),
        ("!a", "!!a,*", False),
        ("a ", "a", False),
        ("/usr/lib/x", "/usr/lib*/*,/usr/local/lib*/*", True),
        ("/usr/local/lib/x", "/usr/lib*/*,/usr/local/lib*/*", True),
        ("/home/u/x", "/usr/lib*/*,/usr/local/lib*/*", False),
    ],
)
def test_pattern_lists(text: str, patterns: str, allowed: bool) -> None:
    assert matches_list(text, patterns) is allowed


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("a" * 256, "*a" * 127 + "*b"),
        ("a" * 256, "*" + "?a" * 120 + "b*"),
        ("a" * 256, "*?b" * 60),
        ("a" * 250_000, "*" + "a" * 125_000 + "b" + "a" * 1000 + "*c"),
        ("a" * 20_000, "*b" + "*a?" * 80 + "*"),
    ],
)
def test_the_time_it_takes_grows_with_the_text_alone(text: str, pattern: str) -> None:
    started = time.process_time()
    assert not matches(text, pattern)
    assert time.process_time() - started < 0.1
