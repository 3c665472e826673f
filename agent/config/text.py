"""The configuration as TOML: the settings in effect, and the example that explains every key."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from replug.agent.config.keys import GLOBAL_KEYS, Key
from replug.agent.config.model import Config
from replug.agent.config.tables import TABLES, Table, default_of

_WIDTH = 100
_DEFAULTS = Config()

EXAMPLE_HEAD = """\
# replug's configuration: ~/.config/replug/config.toml, all of it optional. See replug.toml(5).
#
# Every key is listed with its default; remove the # in front of a key to set it. Times have the format of
# ssh-agent -t: "90", "30s", "1h30m", "1w". `replug config check` checks the file, `replug config show` shows
# the settings in effect.
"""


def shown(config: Config) -> Iterator[str]:
    """`config` as lines of TOML; comments mark defaults and what is not set."""
    for key in GLOBAL_KEYS:
        value = getattr(config, key.name)
        comment = "  # default" if value == getattr(_DEFAULTS, key.name) else ""
        yield f"{key.name} = {key.kind.write(value)}{comment}"
    for table in TABLES:
        for entry in getattr(config, table.field):
            yield ""
            yield f"[[{table.name}]]"
            yield from _shown_entry(config, table, entry)


def _shown_entry(config: Config, table: Table, entry: object) -> Iterator[str]:
    above = {key.name: key for key in GLOBAL_KEYS}
    for key in table.keys:
        value = getattr(entry, key.name)
        if key.inherits is not None and value is None:
            common = above[key.inherits].kind.write(getattr(config, key.inherits))
            yield f"# {key.name} = {common}  # as above"
        elif key.sample and value is None:
            yield f"# {key.name} is not set"
        else:
            comment = "  # default" if default_of(key) == key.kind.write(value) and not key.inherits else ""
            yield f"{key.name} = {key.kind.write(value)}{comment}"


def example() -> str:
    """The example; without the `#` in front of its keys, it is a file that sets every key."""
    return "".join(
        [
            EXAMPLE_HEAD,
            *(_explained(key) for key in GLOBAL_KEYS),
            *(text for table in TABLES for text in _example_of(table)),
        ]
    )


def _example_of(table: Table) -> Iterator[str]:
    yield f"\n{_comment(table.meaning)}\n\n#[[{table.name}]]\n"
    yield from map(_explained, table.keys)


def _explained(key: Key) -> str:
    return f"\n{_comment(key.meaning)}\n#{key.name} = {key.sample or default_of(key)}\n"


def _comment(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")
