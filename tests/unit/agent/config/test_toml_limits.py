"""Long keys are found where tomllib would find them, and nowhere else."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from doubles.unhurried import unhurried
from hypothesis import given
from hypothesis import strategies as st

from replug.agent.config.toml_limits import MOST_PARTS, line_of_long_key

LONG = ".".join("a" * (MOST_PARTS + 1))


@pytest.mark.parametrize(
    "text",
    [
        f'a = "{LONG}"',
        f"a = '{LONG}'",
        f'a = """\n{LONG}\n"""""',
        f"a = '''\n{LONG}\n'''",
        f'a = "\\"{LONG}"',
        f"a = 1 # {LONG}",
        ".".join("a" * MOST_PARTS) + " = 1",
        "a = [" + "1.5, " * 100 + "]",
    ],
)
def test_what_is_no_long_key(text: str) -> None:
    tomllib.loads(text)
    assert line_of_long_key(text) is None


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        f"\t{LONG} = 1",
        LONG.replace(".", " . "),
        LONG.replace("a", '"a.b"'),
        LONG.replace("a", "'a # b'"),
        LONG.replace("a", '""'),
        f'b = "" # "\n{LONG}',
        f"b = {{ c = 1, {LONG} = 2 }}",
        f'b = """"a""""\n{LONG}',
        f'b = "\\\\"\n{LONG}',
    ],
)
def test_a_long_key(text: str) -> None:
    assert line_of_long_key(f"x = 1\n{text}") == text.count("\n") + 2


parts = st.sampled_from(["a", "b-_1", '"."', "'a.b'", '"\\""', '"#"'])
keys = st.lists(parts, min_size=1, max_size=MOST_PARTS + 3).map(".".join)
values = st.sampled_from(['"a.b"', "1.5", f'"""\n{LONG}"""', "'#'", f"'{LONG}' # {LONG}", "[1.5, 2.5]"])


@unhurried
@given(st.lists(st.tuples(keys, values), max_size=4))
def test_as_tomllib_reads_it(pairs: list[tuple[str, str]]) -> None:
    for key, value in pairs:
        text = f"{key} = {value}\n"
        assert (line_of_long_key(text) is not None) == (_depth(tomllib.loads(text)) > MOST_PARTS)


def _depth(table: Any) -> int:
    """How many tables are in each other; each here has one key."""
    depth = 0
    while isinstance(table, dict):
        (table,) = table.values()
        depth += 1
    return depth
