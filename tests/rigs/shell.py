"""A person at a shell: what they type, what they see, and whether that is what they expect."""

from __future__ import annotations

import os
import pty
import re
import select
import sys
import time
from pathlib import Path

from rigs.home import Home

PATIENCE = 60  # seconds, for any one command
_PROMPT = re.compile(r"\[(\d+)\]\$ $")


class UnexpectedError(Exception):
    """A command did not do what it should."""


class Shell:
    """A real shell on a terminal, into which we type; what it shows is printed."""

    def __init__(self, home: Home) -> None:
        # The shell's prompt carries the last command's exit status; the reader gets to see "$ ".
        env = home.env | {"PS1": "[$?]$ ", "ENV": "", "TERM": "dumb"}
        env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
        process, self._terminal = pty.fork()
        if process == 0:
            os.chdir(home.folder)
            os.execvpe("sh", ["sh", "-i"], env)
        self._await(_PROMPT)
        self._type("stty -echo; PS2=; cd .")
        self._await(_PROMPT)

    def run(
        self, command: str, *, answer: tuple[str, str] | None = None, status: int = 0, expect: str = ""
    ) -> str:
        """Types a command and, at a prompt, an answer; shows both with the output, and returns that.

        Raises UnexpectedError if it ends with another status, or does not print the pattern `expect`.
        """
        print(f"\n$ {command}")
        self._type(command)
        if answer:
            prompt, text = answer
            print(self._await(re.compile(re.escape(prompt))) + f"      <- typed, not shown: {text}")
            self._type(text)
        output = self._await(_PROMPT)
        ended = _PROMPT.search(output)
        assert ended
        output = output[: ended.start()].lstrip("\n")
        print(output, end="", flush=True)
        if int(ended[1]) != status:
            raise UnexpectedError(f"{command!r} ended with status {ended[1]}")
        if not re.search(expect, output):
            raise UnexpectedError(f"{command!r} did not print {expect!r}")
        return output

    def close(self) -> None:
        """Hangs up."""
        os.close(self._terminal)

    def _type(self, line: str) -> None:
        os.write(self._terminal, line.encode() + b"\n")

    def _await(self, pattern: re.Pattern[str]) -> str:
        """Reads until `pattern` stands at the end of what the terminal shows; returns all of it."""
        shown = ""
        end = time.monotonic() + PATIENCE
        while not pattern.search(shown):
            ready, _, _ = select.select([self._terminal], [], [], max(0, end - time.monotonic()))
            if not ready:
                raise UnexpectedError(f"nothing more within {PATIENCE} s after {shown!r}")
            try:
                shown += os.read(self._terminal, 4096).decode(errors="replace").replace("\r\n", "\n")
            except OSError as error:
                raise UnexpectedError(f"the shell ended after {shown!r}") from error
        return shown


def say(text: str) -> None:
    """Prints what the next commands are about."""
    print(f"\n# {text}", flush=True)
