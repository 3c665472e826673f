"""Parses a configuration file, and finds every error in it, with its line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from replug.agent.config.keys import GLOBAL_KEYS, TOKEN_KEYS, Key
from replug.agent.config.kinds import WrongValueError, or_
from replug.agent.config.model import Config, Problem, TokenEntry
from replug.agent.config.toml_lines import KeyPath, key_lines

_TOKENS = "token"
_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True)
class Reading:
    """A parsed text."""

    config: Config
    """Only to be used if there are no problems."""
    problems: list[Problem]
    """In line order."""
    lines: dict[KeyPath, int]
    """The line of each key."""


def read_config(text: str) -> Reading:
    """Parse `text`; errors in it are among the problems, and nothing is raised."""
    try:
        values = tomllib.loads(text)
        reader = _Reader(key_lines(text))
    except ValueError as error:  # also for a number of too many digits
        return Reading(Config(), [_syntax_problem(text, str(error))], {})
    except RecursionError:
        return Reading(Config(), [Problem(None, "lists and tables are nested too deeply")], {})
    config = reader.config(values)
    return Reading(config, sorted(reader.problems, key=lambda problem: problem.line or 0), reader.lines)


def _syntax_problem(text: str, message: str) -> Problem:
    found = _AT.search(message)
    last = text.count("\n") + 1
    if found is None:
        return Problem(None, message)
    message = message[: found.start()]
    if found[1] is None:
        return Problem(last, f"{message}, at the end of the file")
    return Problem(int(found[1]), f"{message}, in column {found[2]}")


class _Reader:
    def __init__(self, lines: dict[KeyPath, int]) -> None:
        self.lines = lines
        self.problems: list[Problem] = []

    def config(self, values: Mapping[str, Any]) -> Config:
        given = dict(values)
        tokens = given.pop(_TOKENS, [])
        if not isinstance(tokens, list) or not all(isinstance(token, dict) for token in tokens):
            self._complain((_TOKENS,), f"{_TOKENS} must be a list of tables: write [[{_TOKENS}]] above each")
            tokens = []
        settings = self._values(given, GLOBAL_KEYS, ())
        entries = [self._token(token, place) for place, token in enumerate(tokens)]
        found = [(place, entry) for place, entry in enumerate(entries) if entry is not None]
        self._complain_of_hidden(found)
        return Config(**settings, tokens=tuple(entry for _, entry in found))

    def _token(self, values: Mapping[str, Any], place: int) -> TokenEntry | None:
        path = (_TOKENS, place)
        settings = self._values(values, TOKEN_KEYS, path)
        if "uri" not in values:
            self._complain(path, f'a [[{_TOKENS}]] needs a uri, such as uri = "pkcs11:token=work"')
        uri = settings.pop("uri", None)
        if uri is None:
            return None
        if uri.module_path is not None:
            if settings.setdefault("module", uri.module_path) != uri.module_path:
                self._complain((*path, "module"), "module is not the module-path of uri")
            uri = replace(uri, module_path=None)
        return TokenEntry(uri, **settings)

    def _values(self, values: Mapping[str, Any], keys: Sequence[Key], path: KeyPath) -> dict[str, Any]:
        """The valid values, by key."""
        known = {key.name: key for key in keys}
        read = {}
        for name, value in values.items():
            if name not in known:
                self._complain((*path, name), _unknown(name, keys))
                continue
            try:
                read[name] = known[name].kind.read(value)
            except WrongValueError as error:
                for place, text in error.faults:
                    self._complain((*path, name, *place), f"{name}{text}")
        return read

    def _complain_of_hidden(self, entries: Sequence[tuple[int, TokenEntry]]) -> None:
        for index, (place, entry) in enumerate(entries):
            for earlier_place, earlier in entries[:index]:
                if _covers(earlier, entry):
                    line = self.lines[(_TOKENS, earlier_place)]
                    self._complain(
                        (_TOKENS, place),
                        f"this [[{_TOKENS}]] never applies: the one in line {line} comes first",
                    )
                    break

    def _complain(self, path: KeyPath, message: str) -> None:
        # An element of a nested list has no line, but its list has.
        while path not in self.lines:
            path = path[:-1]
        self.problems.append(Problem(self.lines[path], message))


def _unknown(name: str, keys: Sequence[Key]) -> str:
    here = [key.name for key in keys]
    elsewhere = TOKEN_KEYS if keys is GLOBAL_KEYS else GLOBAL_KEYS
    if any(name == key.name for key in elsewhere):
        if keys is GLOBAL_KEYS:
            return f"{name} is a key of a [[{_TOKENS}]], not of the whole file"
        return f"{name} applies to the whole file: put it above the first [[{_TOKENS}]]"
    import difflib  # only needed for misspelt keys

    close = difflib.get_close_matches(name, [*here, _TOKENS] if keys is GLOBAL_KEYS else here, n=1)
    return f"unknown key {name!r}" + (f"; did you mean {or_(close)}?" if close else "")


def _covers(earlier: TokenEntry, later: TokenEntry) -> bool:
    """Whether `earlier` applies to every token that `later` applies to."""
    return earlier.module in (None, later.module) and all(
        getattr(earlier.uri, name) in (None, getattr(later.uri, name))
        for name in ("token", "manufacturer", "serial", "model")
    )
