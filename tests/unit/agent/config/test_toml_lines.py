"""The scanner that finds the lines of keys, on all that TOML allows."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from doubles.unhurried import unhurried
from hypothesis import given
from hypothesis import strategies as st

from replug.agent.config.toml_lines import KeyPath, key_lines


def paths(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    """All keys and places in what tomllib made of a document."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {path} if path else set()
    for name, part in parts:
        found |= paths(part, (*path, name))
    return found


def lines_of(text: str) -> dict[KeyPath, int]:
    """The lines, after a check that there is one for everything in the document and for nothing else."""
    lines = key_lines(text)
    assert set(lines) == paths(tomllib.loads(text))
    return lines


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment", "   \t\r\n# two\r\n"])
def test_a_document_without_keys(text: str) -> None:
    assert lines_of(text) == {}


def test_keys_and_comments() -> None:
    assert lines_of("# a = 1\n\na = 1 # b = 2\n  c\t=\t'#'\n") == {("a",): 3, ("c",): 4}


def test_lines_of_windows() -> None:
    assert lines_of("a = 1\r\n\r\nb = [\r\n  1,\r\n]\r\nc = true") == {
        ("a",): 1,
        ("b",): 3,
        ("b", 0): 4,
        ("c",): 6,
    }


def test_dotted_and_quoted_keys() -> None:
    assert lines_of('a.b . c = 1\n"a".\'d.e\' = 2\n\'\' = 3\n"\\u0041=\\"" = 4\na.b."#" = 5') == {
        ("a",): 1,
        ("a", "b"): 1,
        ("a", "b", "c"): 1,
        ("a", "d.e"): 2,
        ("",): 3,
        ('A="',): 4,
        ("a", "b", "#"): 5,
    }


def test_numbers_as_keys() -> None:
    assert lines_of("3.14 = 1\n-1 = 2\n2020-01-01 = 3") == {
        ("3",): 1,
        ("3", "14"): 1,
        ("-1",): 2,
        ("2020-01-01",): 3,
    }


@pytest.mark.parametrize(
    "value",
    [
        '""',
        '"a # b"',
        '"\\""',
        '"\\\\"',
        "'\\'",
        "''",
        '"""\n]\nx = 1\n"""',
        '"""""""',
        '"""a""b"""',
        '"""two at the end"""""',
        '"""a\\"""b"""',
        '"""a\\\\"""',
        '"""\\\n  folded"""',
        "'''\n[x]\n'''",
        "'''a''b'''''",
        "1979-05-27 07:32:00",
        "1979-05-27T07:32:00Z",
        "-inf",
        "0xDEAD_beef",
        "6.02e23",
        "true",
    ],
)
def test_what_follows_a_value_is_found(value: str) -> None:
    last = value.count("\n") + 2
    alone = lines_of(f"a = {value} # b\nz = 1")
    assert alone == {("a",): 1, ("z",): last}
    in_list = lines_of(f"a = [{value},{value}]\nz = 1")
    assert in_list[("z",)] == 2 * value.count("\n") + 2
    in_table = lines_of(f"a = {{ b = {value}, c = {value} }}\nz = 1")
    assert in_table[("a", "c")] == value.count("\n") + 1
    assert in_table[("z",)] == 2 * value.count("\n") + 2


def test_elements_of_lists_have_lines() -> None:
    text = 'a = [ # ]\n  "x", # ,\n\n  "y" ,\n  [1,\n 2], { b = 1, c.d = [\n3] }\n  ,\n]\nz = []'
    assert lines_of(text) == {
        ("a",): 1,
        ("a", 0): 2,
        ("a", 1): 4,
        ("a", 2): 5,
        ("a", 2, 0): 5,
        ("a", 2, 1): 6,
        ("a", 3): 6,
        ("a", 3, "b"): 6,
        ("a", 3, "c"): 6,
        ("a", 3, "c", "d"): 6,
        ("a", 3, "c", "d", 0): 7,
        ("z",): 10,
    }


def test_tables() -> None:
    assert lines_of("[ a . 'b' ]\nc = 1\n\n[a]\nd = 1\n[e]#\n") == {
        ("a",): 1,
        ("a", "b"): 1,
        ("a", "b", "c"): 2,
        ("a", "d"): 5,
        ("e",): 6,
    }


def test_arrays_of_tables() -> None:
    text = "[[t]]\na = 1\n[t.s]\nb = 1\n[[t.u]]\n[[t.u]]\nc = 1\n\n[[ 't' ]]\na = 2\n[[t.u]]\nc = 2\n[[v.w]]"
    assert lines_of(text) == {
        ("t",): 1,
        ("t", 0): 1,
        ("t", 0, "a"): 2,
        ("t", 0, "s"): 3,
        ("t", 0, "s", "b"): 4,
        ("t", 0, "u"): 5,
        ("t", 0, "u", 0): 5,
        ("t", 0, "u", 1): 6,
        ("t", 0, "u", 1, "c"): 7,
        ("t", 1): 9,
        ("t", 1, "a"): 10,
        ("t", 1, "u"): 11,
        ("t", 1, "u", 0): 11,
        ("t", 1, "u", 0, "c"): 12,
        ("v",): 13,
        ("v", "w"): 13,
        ("v", "w", 0): 13,
    }


# Documents made of statements of which we know where we put them.

bare = st.text("abcXYZ019_-", min_size=1, max_size=4)
anything = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=4)


def basic(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


written_name = st.one_of(
    bare.map(lambda name: (name, name)),
    anything.map(lambda name: (name, basic(name))),
    anything.filter(lambda name: "'" not in name).map(lambda name: (name, f"'{name}'")),
)
multiline = st.lists(anything.map(lambda line: basic(line)[1:-1]), max_size=3).map(
    lambda lines: '"""' + "\n".join(lines) + '"""'
)
scalar = st.one_of(
    anything.map(basic),
    multiline,
    st.lists(anything.filter(lambda line: "'" not in line), max_size=3).map(
        lambda lines: "'''" + "\n".join(lines) + "'''"
    ),
    st.integers(-99, 99).map(str),
    st.sampled_from(["true", "1e3", "1979-05-27 07:32:00", "07:32:00", "nan"]),
)
gap = st.sampled_from(["", " ", "\n", " # ]} = [\n", "\r\n\t"])
value = st.recursive(
    scalar,
    lambda inner: st.one_of(
        st.lists(st.tuples(gap, inner, gap), max_size=3).map(
            lambda parts: "[" + ",".join(before + part + after for before, part, after in parts) + "]"
        ),
        st.lists(inner, max_size=3).map(
            lambda parts: "{ " + ", ".join(f"k{place} = {part}" for place, part in enumerate(parts)) + " }"
        ),
    ),
    max_leaves=6,
)
statement = st.tuples(written_name, st.sampled_from(["pair", "table", "array"]), value, gap)


@unhurried
@given(st.lists(statement, max_size=8))
def test_each_statement_is_found_where_it_was_put(statements: list[Any]) -> None:
    text, expected, table, arrays = "", {}, (), {}
    for place, ((name, written), kind, content, after) in enumerate(statements):
        line = text.count("\n") + 1
        # A prefix of its own keeps names from colliding where TOML forbids it; arrays share theirs.
        if kind == "pair":
            expected[(*table, f"p{place}", name)] = line
            text += f"p{place} . {written} = {content}"
        elif kind == "table":
            table = (f"t{place}", name)
            expected[table] = line
            text += f"[ t{place}.{written} ]"
        else:
            count = arrays[name] = arrays.get(name, -1) + 1
            table = ("array", name, count)
            expected[table] = line
            text += f"[[array.{written}]]"
        text += after if "\n" in after else f"{after}\n"
    lines = lines_of(text)
    assert {path: lines[path] for path in expected} == expected
