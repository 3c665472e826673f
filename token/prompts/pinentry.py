"""Asking through a pinentry, GnuPG's family of dialogs.

Pinentry's manual describes the commands (https://www.gnupg.org/documentation/manuals/pinentry/).
"""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from replug.token.errors import NobodyAskedError
from replug.token.pins.pin import Pin
from replug.token.prompts.assuan import Conversation, FailedError, RefusedError
from replug.token.prompts.dialog import dialog, find_program, on_display
from replug.token.prompts.place import Terminal
from replug.token.prompts.request import AnyRequest, ConfirmRequest, PinRequest
from replug.token.prompts.terminal_program import free_terminal
from replug.token.prompts.terminals import NoAnswerError, Terminals

_WITH_WINDOWS = (
    "pinentry-gnome3",
    "pinentry-qt6",
    "pinentry-qt",
    "pinentry-qt5",
    "pinentry-gtk-2",
    "pinentry-fltk",
)
_TEXTUAL = ("pinentry-curses", "pinentry-tty")
_YES_BY_ESCAPE = ("pinentry-fltk",)
"""FLTK's dialogs treat Escape and a closed window as their first button, and that is OK."""
_NEXT_STEP = "install a pinentry, or set pinentry_program"
_GRACE = 2.0  # seconds for the dialog to report its timeout


def find_pinentry(path: str | None, *, windows: bool) -> str | None:
    """A pinentry in the folders of `path` (as in $PATH); with `windows`, one that can show windows.

    Plain `pinentry` is the user's or the system's choice and comes first.
    """
    names = ["pinentry", *_WITH_WINDOWS, *([] if windows else _TEXTUAL)]
    found = filter(None, (find_program(name, path) for name in names))
    return next((program for program in found if not (windows and is_textual(program))), None)


def is_textual(program: str) -> bool:
    """Whether this pinentry, given by its path, can only use a terminal."""
    return _real_name(program) in _TEXTUAL


def _real_name(program: str) -> str:
    return os.path.basename(os.path.realpath(program))


class PinentryPrompter:
    """A pinentry, on a display or on a terminal."""

    def __init__(
        self,
        program: str,
        environment: Mapping[str, str],
        timeout: float,
        terminal: Terminal | None,
        terminals: Terminals,
    ) -> None:
        """The dialog appears on the `terminal`, or without one where `environment` says.

        `timeout` is how long a dialog may stay unanswered, in seconds. The program's path is looked at, which
        can block: call it in a thread.
        """
        self._program = program
        # Here, where it may block.
        self._takes_escape_for_yes = _real_name(program) in _YES_BY_ESCAPE
        self._environment = environment
        self._timeout = timeout
        self.terminal = terminal
        self._terminals = terminals

    def __str__(self) -> str:
        where = on_display(self._environment) if self.terminal is None else f" on {self.terminal.path}"
        return f"{self._program}{where}"

    def check(self) -> None:
        """Raise NobodyAskedError if the program cannot be run or its terminal is in use.

        This process waits as long as the terminal takes.
        """
        if find_program(self._program, self._environment.get("PATH")) is None:
            raise NobodyAskedError(f"{self._program} cannot be run", _NEXT_STEP)
        if self.terminal is not None:
            with free_terminal(self.terminal):
                pass

    async def ask(self, request: PinRequest) -> Pin:
        """GETPIN."""
        async with self._conversation(request) as pinentry:
            await pinentry.tell("SETDESC", "\n".join(request.facts()))
            await pinentry.suggest("SETPROMPT", "PIN:")
            if request.warnings():
                await pinentry.tell("SETERROR", "\n".join(request.warnings()))
            try:
                typed = await pinentry.question("GETPIN")
            except RefusedError:
                raise request.cancelled() from None
        return request.pin(typed)

    async def confirm(self, request: ConfirmRequest) -> bool:
        """CONFIRM."""
        if self._takes_escape_for_yes:
            raise NobodyAskedError(f"{self._program} takes Escape for a yes", "install another pinentry")
        async with self._conversation(request) as pinentry:
            await pinentry.tell("SETDESC", request.text())
            await pinentry.suggest("SETOK", "Allow")
            await pinentry.suggest("SETCANCEL", "Refuse")
            try:
                await pinentry.question("CONFIRM")
            except RefusedError:
                return False
        return True

    @asynccontextmanager
    async def _conversation(self, request: AnyRequest) -> AsyncIterator[Conversation]:
        """A running pinentry that has been told where to appear."""
        running = dialog([self._program], self._environment, _NEXT_STEP, stdin=subprocess.PIPE)
        try:
            if self.terminal is not None:
                await self._terminals.check(self.terminal, self._timeout)
                running = self._terminals.counted(running)
            async with running as process, asyncio.timeout(self._timeout + _GRACE):
                pinentry = Conversation(process)
                await pinentry.answer()
                for option, value in self._options().items():
                    await pinentry.suggest("OPTION", f"{option}={value}")
                await pinentry.suggest("SETTIMEOUT", str(math.ceil(self._timeout)))
                await pinentry.suggest("SETTITLE", "replug")
                yield pinentry
        except NoAnswerError as error:
            raise request.too_late(self._timeout, str(error)) from error
        except TimeoutError:
            raise request.too_late(self._timeout) from None
        except (FailedError, OSError) as error:
            raise NobodyAskedError(f"{self._program}: {error}") from error

    def _options(self) -> Mapping[str, str]:
        environment = self._environment
        locale = environment.get("LC_ALL") or environment.get("LC_CTYPE") or environment.get("LANG")
        options = {
            "display": environment.get("DISPLAY"),
            "ttyname": self.terminal.path if self.terminal else None,
            "ttytype": environment.get("TERM") if self.terminal else None,
            "lc-ctype": locale,
            "lc-messages": environment.get("LC_ALL") or environment.get("LANG"),
        }
        return {name: value for name, value in options.items() if value}
