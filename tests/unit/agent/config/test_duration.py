"""The time format of `-t`: the cases of OpenSSH's regress/unittests/misc/test_convtime.c, and more."""

from __future__ import annotations

import pytest
from doubles.unhurried import unhurried
from hypothesis import given
from hypothesis import strategies as st

from replug.agent.config.duration import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("1", 1),
        ("90", 90),
        ("007", 7),
        ("2s", 2),
        ("3m", 180),
        ("1m30", 90),
        ("1m30s", 90),
        ("1h1s", 3601),
        ("1h30m", 90 * 60),
        ("1d", 24 * 60 * 60),
        ("1w", 7 * 24 * 60 * 60),
        ("1w2d3h4m5", 788645),
        ("1W2D3H4M5S", 788645),
        ("30s1m", 90),
        ("1m1m", 120),
        ("1.9", 1),
        ("1.5s", 1),
        (".5", 0),
        ("1m.5", 60),
        ("2147483647", 2**31 - 1),
        ("3550w5d3h14m7s", 2**31 - 1),
    ],
)
def test_valid_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "1\n",
        "+1",
        "-7",
        "-1w",
        "1y",
        "trout",
        "s",
        "1ss",
        "1s1s",
        "30s1",
        "1.5m",
        "5.",
        ".",
        ".s",
        "1.2.3",
        "1e3",
        "0x10",
        "1_000",
        "inf",
        "nan",
        "\u0661",
        "2147483648",
        "2147483647.5",
        "3550w5d3h14m8s",
        "3551w",
        "9" * 400,
        "1h" + "9" * 400 + "w",
    ],
)
def test_invalid_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|seconds"):
        parse_duration(text)


@unhurried
@given(st.integers(0, 500), *[st.integers(0, 60) for _ in range(4)])
def test_a_duration_is_the_sum_of_its_terms(
    weeks: int, days: int, hours: int, minutes: int, seconds: int
) -> None:
    expected = (((weeks * 7 + days) * 24 + hours) * 60 + minutes) * 60 + seconds
    assert parse_duration(f"{weeks}w{days}D{hours}h{minutes}M{seconds}") == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (1, "1s"),
        (60, "1m"),
        (90, "1m30s"),
        (5400, "1h30m"),
        (604800, "1w"),
        (694861, "1w1d1h1m1s"),
    ],
)
def test_durations_are_written_in_the_largest_units(seconds: int, text: str) -> None:
    assert format_duration(seconds) == text


@unhurried
@given(st.integers(0, 2**31 - 1))
def test_what_is_written_is_read(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds
