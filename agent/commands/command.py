"""What a command of `replug` is: a module that declares its arguments and runs.

Modules of commands are all imported at every start, so what they import at their top is cheap.
"""

from __future__ import annotations

import argparse
from typing import Protocol, TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class Command(Protocol):
    """The two functions of a command's module."""

    def add_parser(self, commands: Commands) -> None:
        """Add the command's parser to `commands`, with `run` among its defaults."""

    def run(self, chosen: argparse.Namespace) -> int:
        """Do it and return the exit status; AskError when the agent cannot be asked."""
