"""The kinds of values in the configuration file: parsed from TOML, checked, and written as TOML."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from replug.agent.config.confirm_when import WORDS, ConfirmWhen
from replug.agent.config.duration import format_duration, parse_duration

Place = tuple[int, ...]
"""A place in a value: () is all of it, (2,) the third element of a list."""


class WrongValueError(Exception):
    """A value has the wrong type or is invalid; `faults` are places and texts to put after the key's name."""

    def __init__(self, *faults: tuple[Place, str]) -> None:
        self.faults = faults
        super().__init__("; ".join(text for _, text in faults))


class Kind(Protocol):
    """A kind of value."""

    def read(self, value: object) -> Any:
        """The setting for a TOML value; WrongValueError."""

    def write(self, value: Any) -> str:
        """A setting as TOML, from which `read` makes the same setting."""


def quoted(text: str) -> str:
    """`text` as a basic string of TOML."""
    # JSON and TOML escape alike, except DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@dataclass(frozen=True)
class Time(Kind):
    """A time in quotes, in seconds."""

    never: bool = False
    """Whether "never" is allowed; it is read as `forever`."""
    forever: int | None = None
    zero: bool = False
    """Whether zero is allowed."""

    def read(self, value: object) -> int | None:
        if self.never and value == "never":
            return self.forever
        if not isinstance(value, str):
            otherwise = ' or "never"' if self.never else ""
            raise WrongValueError(((), f' must be a time in quotes, such as "30s"{otherwise}'))
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            raise WrongValueError(((), f": {error}")) from error
        if seconds == 0 and not self.zero:
            raise WrongValueError(((), " must not be zero"))
        return seconds

    def write(self, value: float | None) -> str:
        if self.never and value == self.forever:
            return quoted("never")
        assert value is not None
        return quoted(format_duration(int(value)))


@dataclass(frozen=True)
class Notice(Kind):
    """Whether the user is notified, or after which time; None is no, `moment` seconds are yes."""

    moment: float

    def read(self, value: object) -> float | None:
        if isinstance(value, bool):
            return self.moment if value else None
        if not isinstance(value, str):
            raise WrongValueError(((), ' must be true, false or a time in quotes, such as "3s"'))
        return Time().read(value)

    def write(self, value: float | None) -> str:
        if value is None or value == self.moment:
            return "false" if value is None else "true"
        return Time().write(value)


@dataclass(frozen=True)
class Confirmation(Kind):
    """Whether the user has to confirm, or in which cases."""

    def read(self, value: object) -> ConfirmWhen:
        if isinstance(value, bool):
            return ConfirmWhen.ALWAYS if value else ConfirmWhen.NEVER
        if isinstance(value, list):
            return ConfirmWhen.of(ListOf(Choice(list(WORDS))).read(value))
        if not isinstance(value, str) or value not in WORDS:
            raise WrongValueError(((), f" must be true, false, {or_(list(WORDS))}"))
        return ConfirmWhen.of([value])

    def write(self, value: ConfirmWhen) -> str:
        if ConfirmWhen.ALWAYS in value or not value:
            return "true" if value else "false"
        words = [quoted(word) for word in value.words]
        return words[0] if len(words) == 1 else f"[{', '.join(words)}]"


@dataclass(frozen=True)
class YesOrNo(Kind):
    """true or false."""

    def read(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise WrongValueError(((), " must be true or false"))
        return value

    def write(self, value: bool) -> str:
        return "true" if value else "false"


@dataclass(frozen=True)
class Count(Kind):
    """A whole number from 1 to `most`."""

    most: int

    def read(self, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= self.most:
            raise WrongValueError(((), f" must be a whole number from 1 to {self.most}, without quotes"))
        return value

    def write(self, value: int) -> str:
        return str(value)


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few words; `type_` converts it."""

    words: Sequence[str]
    type_: Callable[[str], Any] = str

    def read(self, value: object) -> Any:
        if not isinstance(value, str) or value not in self.words:
            raise WrongValueError(((), f" must be {or_(self.words)}"))
        return self.type_(value)

    def write(self, value: str) -> str:
        return quoted(value)


@dataclass(frozen=True)
class Text(Kind):
    """A string that `meaning` converts, raising ValueError; `text` converts it back."""

    meaning: Callable[[str], Any]
    text: Callable[[Any], str] = str
    what: str = "text"

    def read(self, value: object) -> Any:
        if not isinstance(value, str):
            raise WrongValueError(((), f" must be {self.what} in quotes"))
        try:
            return self.meaning(value)
        except ValueError as error:
            separator = " " if str(error).startswith("must ") else ": "
            raise WrongValueError(((), f"{separator}{error}")) from error

    def write(self, value: Any) -> str:
        return quoted(self.text(value))


@dataclass(frozen=True)
class ListOf(Kind):
    """A list of `element`s, converted by `whole`; with `alone`, a single one needs no brackets."""

    element: Kind
    whole: Callable[[list[Any]], Any] = tuple
    parts: Callable[[Any], Sequence[Any]] = tuple
    alone: bool = False
    filled: bool = False
    """Whether it needs an element."""

    def read(self, value: object) -> Any:
        if self.alone and isinstance(value, str):
            return self.whole([self.element.read(value)])
        if not isinstance(value, list):
            raise WrongValueError(((), " must be a list: [...]"))
        if self.filled and not value:
            raise WrongValueError(((), " must not be empty"))
        read, faults = [], []
        for place, part in enumerate(value):
            try:
                read.append(self.element.read(part))
            except WrongValueError as error:
                faults += [((place, *where), text) for where, text in error.faults]
        if faults:
            raise WrongValueError(*faults)
        return self.whole(read)

    def write(self, value: Any) -> str:
        return "[" + ", ".join(self.element.write(part) for part in self.parts(value)) + "]"


def absolute_path(text: str) -> str:
    """`text` with `~` expanded; ValueError if it depends on the current folder."""
    path = os.path.expanduser(text)
    if not os.path.isabs(path) or "\0" in path:
        raise ValueError(f"must be an absolute path or begin with ~/, not {text!r}")
    return path


def or_(words: Sequence[str]) -> str:
    """`words` as a choice in a sentence, each in quotes."""
    *first, last = [quoted(word) for word in words]
    return f"{', '.join(first)} or {last}" if first else last
