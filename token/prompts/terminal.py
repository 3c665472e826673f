"""Asking on the terminal of the asking process, as pinentry-curses does for gpg.

ssh waits silently for its agent, so the terminal is free. This is checked: the process must be in the
foreground, and the terminal in its usual line mode. A shell's command line, an editor, or ssh with a session
read single keys; they would receive part of the PIN, and pass it to a remote host.
"""

from __future__ import annotations

from replug.token.pins.pin import LONGEST_PIN, Pin
from replug.token.prompts.place import Terminal
from replug.token.prompts.request import AnyRequest, ConfirmRequest, PinRequest
from replug.token.prompts.terminal_program import free_terminal
from replug.token.prompts.terminals import NoAnswerError, Terminals
from replug.token.prompts.typed_line import Outcome


class TerminalPrompter:
    """A question on a terminal, answered by a line typed there."""

    def __init__(self, terminal: Terminal, timeout: float, terminals: Terminals) -> None:
        """`timeout` is how long the question may stay unanswered, in seconds."""
        self.terminal = terminal
        self._timeout = timeout
        self._terminals = terminals

    def __str__(self) -> str:
        return f"the terminal {self.terminal.path}"

    def check(self) -> None:
        """Raise NobodyAskedError if the terminal is in use; this process waits as long as that takes."""
        with free_terminal(self.terminal):
            pass

    async def ask(self, request: PinRequest) -> Pin:
        """Ask without echo; ^C, ^D and Escape cancel."""
        typed = await self._question(request, request.text(), echo=False)
        if typed is None:
            raise request.cancelled()
        return request.pin(typed)

    async def confirm(self, request: ConfirmRequest) -> bool:
        """`yes` or `y` is a yes, anything else a no."""
        typed = await self._question(request, f"{request.text()}\n(yes/no) ", echo=True)
        return typed is not None and bytes(typed).strip().lower() in (b"y", b"yes")

    async def _question(self, request: AnyRequest, text: str, *, echo: bool) -> bytearray | None:
        """The line typed as answer; None if the user cancels."""
        try:
            outcome, typed = await self._terminals.ask(
                self.terminal, text, self._timeout, most=LONGEST_PIN + 1, echo=echo
            )
        except NoAnswerError as error:
            raise request.too_late(self._timeout, str(error)) from error
        match outcome:
            case Outcome.ENTERED:
                return typed
            case Outcome.CANCELLED:
                return None
            case Outcome.LATE:
                raise request.too_late(self._timeout)
            case _:
                raise request.failure(f"{self.terminal.path} was closed")
