"""The interface of a command of `replug`: a module that declares its arguments and runs.

All command modules are imported at every start, so they import nothing slow at their top.
"""

from __future__ import annotations

import argparse
from typing import Protocol, TypeAlias

from replug.agent.commands.parser import Parser

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


class Command(Protocol):
    """A command's module has these two functions."""

    def add_parser(self, commands: Commands) -> None:
        """Add the command's parser to `commands`, with `run` among its defaults."""

    def run(self, chosen: argparse.Namespace) -> int:
        """Run the command; returns the exit status. AskError if the agent cannot be asked."""
