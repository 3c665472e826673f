"""Settings that are valid but do not match this machine: missing files, unsafe PIN files.

Only `replug config check` checks this: what is missing now may exist when it is needed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from replug.agent.config.model import AUTO, Problem, TokenEntry
from replug.agent.config.reader import Reading
from replug.agent.config.toml_lines import KeyPath
from replug.protocol.patterns import matches_list
from replug.token.errors import TokenError
from replug.token.names.pin_source import SourceKind
from replug.token.names.uri import is_uri, parse_uri
from replug.token.pins.source import read_pin

_WILDCARDS = frozenset("*?[")


def problems_of_the_machine(reading: Reading) -> list[Problem]:
    """Settings in `reading`, a valid configuration, that do not match this machine, in line order."""
    return sorted(_Checks(reading).all(), key=lambda problem: problem.line or 0)


class _Checks:
    def __init__(self, reading: Reading) -> None:
        self._config = reading.config
        self._lines = reading.lines

    def all(self) -> Iterator[Problem]:
        config = self._config
        if config.pinentry_program is not None and shutil.which(config.pinentry_program) is None:
            yield self._problem(f"there is no program {config.pinentry_program}", "pinentry_program")
        for place, certificate in enumerate(config.certificates):
            if not _WILDCARDS & set(certificate) and not Path(certificate).is_file():
                yield self._problem(f"{certificate} does not exist", "certificates", place)
        for place, name in enumerate(config.modules):
            module = parse_uri(name).module_path if is_uri(name) else name
            if module is not None and module != AUTO:
                yield from self._module(module, "modules", place)
        for place, entry in enumerate(config.tokens):
            yield from self._token(entry, place)

    def _token(self, entry: TokenEntry, place: int) -> Iterator[Problem]:
        if entry.module is not None:
            in_uri = ("token", place, "module") not in self._lines
            yield from self._module(entry.module, "token", place, "uri" if in_uri else "module")
        # A credential exists only for the service.
        if entry.pin_source is not None and entry.pin_source.kind is SourceKind.FILE:
            try:
                read_pin(entry.pin_source, os.environ).wipe()
            except TokenError as error:
                yield Problem(self._line("token", place, "pin_source"), error.reason)

    def _module(self, module: str, *path: str | int) -> Iterator[Problem]:
        real = Path(module).resolve()
        if not real.exists():
            yield self._problem(f"{module} does not exist", *path)
        elif not real.is_file():
            yield self._problem(f"{module} is not a file", *path)
        elif not matches_list(str(real), self._config.allowed_modules):
            allowed = self._config.allowed_modules
            yield self._problem(f"{real} is not in allowed_modules ({allowed})", *path)

    def _problem(self, message: str, *path: str | int) -> Problem:
        name = [part for part in path if isinstance(part, str)][-1]
        return Problem(self._line(*path), f"{name}: {message}")

    def _line(self, *path: str | int) -> int | None:
        """The line of a setting; a single value in place of a list has the line of its key."""
        whole: KeyPath = path
        return self._lines.get(whole) or self._lines.get(whole[:-1])
