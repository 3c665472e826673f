"""A folder over which a program of the user has mounted a file system that does not answer."""

from __future__ import annotations

import select
import subprocess
from enum import IntEnum
from pathlib import Path

import pytest

_SOURCE = Path(__file__).parents[1] / "attacks" / "mute_folder.c"


class Request(IntEnum):
    """What the file system is asked (linux/fuse.h)."""

    LOOKUP = 1
    MKNOD = 8
    UNLINK = 10
    RENAME = 12
    OPEN = 14
    WRITE = 16
    CREATE = 35


def build(folder: Path) -> Path:
    """Compiles the program into `folder` and returns its path."""
    program = folder / "mute_folder"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, _SOURCE], check=True)
    return program


class MuteFolder:
    """From its making to `end`; it has a file `program`, and lets others be made."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """`process` runs mute_folder."""
        self._process = process
        said = self._line()
        if said.startswith("skip"):
            self.end()
            pytest.skip(said)
        assert said == "mounted"

    def await_question(self, within: float = 30) -> None:
        """Waits until somebody waits for an answer."""
        assert self._process.stdout
        assert select.select([self._process.stdout], [], [], within)[0], "nobody has asked"
        assert self._line() == "asked"

    def end(self) -> None:
        """Whoever waits gets an error."""
        self._process.kill()
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().decode().strip()
