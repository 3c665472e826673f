"""argparse, with suggestions for what was mistyped and `--version` after every command."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """The parser of the program, and of each of its commands."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self._options: list[str] = []
        super().__init__(*args, **settings)
        self.words: Iterable[str] = ()
        """The commands that it knows."""
        top_level = " " not in self.prog
        self.add_argument(
            *(["-V"] if top_level else []),
            "--version",
            action=_Version,
            nargs=0,
            help="show the version and exit" if top_level else argparse.SUPPRESS,
        )

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """As argparse does; the options are remembered for suggestions."""
        self._options += [name for name in names if name.startswith("--")]
        return super().add_argument(*names, **settings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; but what a command does not know is its error, not that of the program."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            meant = _closest(unknown[0].partition("=")[0], self._options)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and exit with 2."""
        mistyped = re.search(r"invalid choice: '([^']*)'", message)
        if mistyped and self.words:
            message = f"unknown command '{mistyped[1]}'{_closest(mistyped[1], self.words)}"
        super().error(message)


def _closest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


class _Version(argparse.Action):
    """Looks up the version only if it is asked for: that takes longer than everything else."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        from importlib.metadata import version

        print(f"replug {version('replug')}")
        parser.exit()
