"""Parses a configuration file, and finds every error in it, with its line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from replug.agent.config.ca_entry import CaEntry
from replug.agent.config.keys import GLOBAL_KEYS, Key
from replug.agent.config.kinds import WrongValueError, or_
from replug.agent.config.model import Config, Problem, TokenEntry
from replug.agent.config.tables import CERTIFICATES, KEYS, SOCKETS, TABLES, TOKENS, Table
from replug.agent.config.toml_limits import MOST_PARTS, line_of_long_key
from replug.agent.config.toml_lines import KeyPath, key_lines

_MOST_PROBLEMS = 100
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
    line = line_of_long_key(text)
    if line is not None:
        return Reading(Config(), [Problem(line, f"a key has more than {MOST_PARTS} parts")], {})
    try:
        values = tomllib.loads(text)
        reader = _Reader(key_lines(text))
    except ValueError as error:  # also for a number of too many digits
        return Reading(Config(), [_syntax_problem(text, str(error))], {})
    except RecursionError:
        return Reading(Config(), [Problem(None, "lists and tables are nested too deeply")], {})
    config = Config()
    with suppress(_TooManyError):
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


class _TooManyError(Exception):
    """There are more problems than anybody reads."""


class _Reader:
    def __init__(self, lines: dict[KeyPath, int]) -> None:
        self.lines = lines
        self.problems: list[Problem] = []

    def config(self, values: Mapping[str, Any]) -> Config:
        given = dict(values)
        entries: dict[str, Any] = {
            table.field: self._entries(table, given.pop(table.name, [])) for table in TABLES
        }
        settings = self._values(given, GLOBAL_KEYS, ())
        return Config(**settings, **entries)

    def _entries(self, table: Table, tables: object) -> tuple[Any, ...]:
        """The valid entries of a table that may be repeated."""
        if not isinstance(tables, list) or not all(isinstance(values, dict) for values in tables):
            name = table.name
            self._complain((name,), f"{name} must be a list of tables: write [[{name}]] above each")
            return ()
        if len(tables) > table.most:
            self._complain((table.name, table.most), f"there are more than {table.most} [[{table.name}]]")
            return ()
        entries = [self._read(table, values, (table.name, place)) for place, values in enumerate(tables)]
        found = [(place, entry) for place, entry in enumerate(entries) if entry is not None]
        if table is CERTIFICATES:
            self._complain_of_repeated(table, "certificate_file", found, "another rule writes this file")
        elif table is SOCKETS:
            self._complain_of_repeated(table, "path", found, "another [[socket]] has this one")
        elif table is not KEYS:  # of which several may be about one key
            self._complain_of_hidden(table, found, _covers if table is TOKENS else _same_key)
        return tuple(entry for _, entry in found)

    def _read(self, table: Table, values: Mapping[str, Any], path: KeyPath) -> Any:
        """An entry; None if what it needs is missing."""
        if table is TOKENS:
            return self._token(values, path)
        return self._entry(table, values, path)

    def _entry(self, table: Table, values: Mapping[str, Any], path: KeyPath) -> Any:
        """An entry; None if a key is missing that it needs. What contradicts itself is complained of."""
        settings = self._values(values, table.keys, path)
        missing = [key for key in table.keys if key.name not in settings and _is_required(key, table)]
        for key in missing:
            if key.name not in values:
                self._complain(
                    path, f"a [[{table.name}]] needs {key.name}, such as {key.name} = {key.sample}"
                )
        if missing:
            return None
        entry = table.entry(**settings)
        for name, why in table.contradictions(entry):
            self._complain((*path, name), f"{name}: {why}")
        return entry

    def _complain_of_repeated(
        self, table: Table, name: str, entries: Sequence[tuple[int, Any]], why: str
    ) -> None:
        """Of a key that has the same value in two entries, unless it is empty."""
        before = {""}
        for place, entry in entries:
            value = getattr(entry, name)
            if value and value in before:
                self._complain((table.name, place, name), f"{name}: {why}")
            before.add(value)

    def _token(self, values: Mapping[str, Any], path: KeyPath) -> TokenEntry | None:
        settings = self._values(values, TOKENS.keys, path)
        if "uri" not in values:
            self._complain(path, f'a [[{TOKENS.name}]] needs a uri, such as uri = "pkcs11:token=work"')
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

    def _complain_of_hidden(
        self, table: Table, entries: Sequence[tuple[int, Any]], covers: Callable[[Any, Any], bool]
    ) -> None:
        for index, (place, entry) in enumerate(entries):
            for earlier_place, earlier in entries[:index]:
                if covers(earlier, entry):
                    line = self.lines[(table.name, earlier_place)]
                    self._complain(
                        (table.name, place),
                        f"this [[{table.name}]] never applies: the one in line {line} comes first",
                    )
                    break

    def _complain(self, path: KeyPath, message: str) -> None:
        # An element of a nested list has no line, but its list has.
        while path not in self.lines:
            path = path[:-1]
        if len(self.problems) == _MOST_PROBLEMS:
            self.problems.append(Problem(self.lines[path], "this and what follows was not read"))
            raise _TooManyError
        self.problems.append(Problem(self.lines[path], message))


def _unknown(name: str, keys: Sequence[Key]) -> str:
    here = [key.name for key in keys]
    tables = [table for table in TABLES if any(name == key.name for key in table.keys)]
    if keys is GLOBAL_KEYS and tables:
        return f"{name} is a key of a {_names(tables)}, not of the whole file"
    if keys is not GLOBAL_KEYS and any(name == key.name for key in GLOBAL_KEYS):
        return f"{name} applies to the whole file: put it above the first {_names(TABLES)}"
    if keys is not GLOBAL_KEYS and tables:
        return f"{name} is a key of a {_names(tables)}"
    import difflib  # only needed for misspelt keys

    names = [table.name for table in TABLES]
    close = difflib.get_close_matches(name, [*here, *names] if keys is GLOBAL_KEYS else here, n=1)
    return f"unknown key {name!r}" + (f"; did you mean {or_(close)}?" if close else "")


def _names(tables: Sequence[Table]) -> str:
    return " or ".join(f"[[{table.name}]]" for table in tables)


def _is_required(key: Key, table: Table) -> bool:
    return any(field.name == key.name and field.default is MISSING for field in fields(table.entry))


def _same_key(earlier: CaEntry, later: CaEntry) -> bool:
    return earlier.key == later.key


def _covers(earlier: TokenEntry, later: TokenEntry) -> bool:
    """Whether `earlier` applies to every token that `later` applies to."""
    return earlier.module in (None, later.module) and all(
        getattr(earlier.uri, name) in (None, getattr(later.uri, name))
        for name in ("token", "manufacturer", "serial", "model")
    )
