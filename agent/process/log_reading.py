"""Reads lines of the agent's log, as `replug.agent.process.log` writes them."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

_FIELD = re.compile(r' ([a-z_]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s"]\S*))')
_ESCAPED = re.compile(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|.)")
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t"}
_FOREGROUND = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d{3} [A-Z]+ (.*)")
_SYSLOG = re.compile(
    r"(?:(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\S*|([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d))"
    r" \S+ replug-agent\[\d+\]: (.*)"
)


@dataclass(frozen=True)
class LoggedEvent:
    """What one line says."""

    time: float
    """In seconds since 1970."""
    message: str
    fields: dict[str, str]


def read_message(when: float, text: str) -> LoggedEvent:
    """Read what the journal has of a line: the message and its fields.

    A line that was too long ends early; a field that has no end is left out.
    """
    fields: dict[str, str] = {}
    first = _FIELD.search(text)
    position = first.start() if first else len(text)
    message = text[:position]
    while found := _FIELD.match(text, position):
        name, quoted, plain = found.groups()
        fields[name] = plain if quoted is None else _ESCAPED.sub(_unescaped, quoted)
        position = found.end()
    return LoggedEvent(when, message, fields)


def read_lines(lines: Iterator[str], now: float) -> Iterator[LoggedEvent]:
    """Read the lines of a file: what `replug-agent -D` wrote to stderr, or syslog's. Others are skipped.

    `now` is in seconds since 1970: the older form of syslog's lines has no year.
    """
    for line in lines:
        with suppress(ValueError, OverflowError):  # a date that there is not
            if found := _FOREGROUND.fullmatch(line.rstrip("\n")):
                date, text = found.groups()
                yield read_message(_seconds(date, "%Y-%m-%d %H:%M:%S"), text)
            elif found := _SYSLOG.fullmatch(line.rstrip("\n")):
                date, short, text = found.groups()
                when = _seconds(date, "%Y-%m-%dT%H:%M:%S") if date else _seconds_without_year(short, now)
                yield read_message(when, text)


def _unescaped(found: re.Match[str]) -> str:
    code = found[1]
    if len(code) == 1:
        return _CONTROLS.get(code, code)
    character = int(code[1:], 16)
    return chr(character) if character <= sys.maxunicode else found[0]


def _seconds(date: str, form: str) -> float:
    return time.mktime(time.strptime(date, form))


def _seconds_without_year(date: str, now: float) -> float:
    """Of the last year in which this date is not in the future."""
    year = time.localtime(now).tm_year
    for candidate in range(year, year - 5, -1):
        try:
            when = _seconds(f"{candidate} {date}", "%Y %b %d %H:%M:%S")
        except ValueError:
            continue  # the 29th of February
        if when <= now + 86_400:  # another time zone
            return when
    raise ValueError(f"no date: {date}")
