"""The log is read as it was written, whatever the fields hold."""

from __future__ import annotations

import logging
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replug.agent.process.log import FieldFormatter
from replug.agent.process.log_reading import read_lines, read_message

NOW = time.mktime((2026, 3, 2, 12, 0, 0, 0, 0, -1))


def written(*, dated: bool = False, **fields: str) -> str:
    record = logging.makeLogRecord(
        {"msg": "signed", "levelname": "INFO", "created": NOW, "msecs": 0.0, **fields}
    )
    return FieldFormatter(dated=dated).format(record)


@given(st.dictionaries(st.sampled_from(["key", "program", "purpose", "comment"]), st.text(max_size=120)))
def test_fields_are_read_as_they_were_written(fields: dict[str, str]) -> None:
    event = read_message(NOW, written(**fields))
    assert event.message == "signed"
    assert event.fields == {name: value for name, value in fields.items() if value}


def test_a_field_cannot_bring_another() -> None:
    event = read_message(NOW, written(comment='a" key=SHA256:forged\nsigned key=SHA256:forged', key="true"))
    assert event.fields["key"] == "true"


def test_a_line_that_was_cut_has_the_fields_before_the_cut() -> None:
    line = written(key="SHA256:abc", purpose="login at a host that has no end")
    assert read_message(NOW, line[:-5]).fields == {"key": "SHA256:abc"}


@pytest.mark.parametrize(
    "line",
    [
        written(dated=True, key="k"),
        "2026-03-02T12:00:00.123456+01:00 laptop replug-agent[7]: signed key=k",
        "Mar  2 12:00:00 laptop replug-agent[7]: signed key=k",
    ],
)
def test_lines_of_files(line: str) -> None:
    [event] = read_lines(iter(["Traceback of another\n", f"{line}\n", "\n"]), NOW)
    assert (event.time, event.message, event.fields) == (NOW, "signed", {"key": "k"})


@pytest.mark.parametrize(
    "date",
    [
        "2026-99-99 10:00:00,000 INFO",
        "0000-01-01 10:00:00,000 INFO",
        "2026-02-30T10:00:00 laptop replug-agent[7]:",
        "Xyz 30 10:00:00 laptop replug-agent[7]:",
    ],
)
def test_a_line_with_a_date_that_there_is_not_is_none(date: str) -> None:
    assert [*read_lines(iter([f"{date} signed key=k\n"]), NOW)] == []


@pytest.mark.parametrize("escape", ["\\Uffffffff", "\\U00110000"])
def test_what_no_agent_writes_is_no_character(escape: str) -> None:
    assert read_message(NOW, f'signed key="{escape}"').fields == {"key": escape}


def test_a_date_without_a_year_is_the_last_one() -> None:
    [event] = read_lines(iter(["Dec 31 12:00:00 laptop replug-agent[7]: started\n"]), NOW)
    assert time.localtime(event.time)[:3] == (2025, 12, 31)
