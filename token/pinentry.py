"""Asking through a pinentry, GnuPG's family of dialogs.

The protocol is Assuan (https://www.gnupg.org/documentation/manuals/assuan/), on the program's standard input
and output: a command a line, answered by `D` lines with data and then `OK` or `ERR code text`. What the
commands mean is in pinentry's own manual.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress

from replug.token.dialog import dialog, readable
from replug.token.identity import printable
from replug.token.pin import Pin
from replug.token.prompt import LONGEST_PIN, AnyRequest, ConfirmRequest, PinRequest
from replug.token.requester import Terminal
from replug.token.terminal_prompt import free_terminal

_WITH_WINDOWS = (
    "pinentry-gnome3",
    "pinentry-qt6",
    "pinentry-qt",
    "pinentry-qt5",
    "pinentry-gtk-2",
    "pinentry-fltk",
)
_TEXTUAL = ("pinentry-curses", "pinentry-tty")
_LONGEST_LINE = 1000  # bytes, with its end (ASSUAN_LINELENGTH)
_LONGEST_ANSWER = 4 * _LONGEST_LINE
_GRACE = 2.0  # seconds for the dialog to report that its time is up

# Codes of libgpg-error, which are the low half of what ERR carries; the upper half says who found it.
_TIMEOUT = 62
_REFUSED = (99, 114, 198)  # GPG_ERR_CANCELED, NOT_CONFIRMED, FULLY_CANCELED


def find_pinentry(path: str | None, *, windows: bool = False) -> str | None:
    """A pinentry in the folders of `path` (as in $PATH), if need be one with `windows`.

    What is called plainly pinentry is the person's or the system's choice and comes first.
    """
    names = ["pinentry", *_WITH_WINDOWS, *([] if windows else _TEXTUAL)]
    found = filter(None, (shutil.which(name, path=path) for name in names))
    return next((program for program in found if not (windows and is_textual(program))), None)


def is_textual(program: str) -> bool:
    """Whether it is one that can only use a terminal."""
    return bool(program) and os.path.basename(os.path.realpath(program)) in _TEXTUAL


class PinentryPrompter:
    """A pinentry, on a display or on a terminal."""

    def __init__(
        self, program: str, environment: Mapping[str, str], timeout: float, terminal: Terminal | None = None
    ) -> None:
        """`environment` is given to the `program` and says where it shows itself, if not on the `terminal`.

        `timeout` is how long a dialog may stand unanswered, in seconds.
        """
        self._program = program
        self._environment = environment
        self._timeout = timeout
        self._terminal = terminal

    async def ask(self, request: PinRequest) -> Pin:
        """GETPIN."""
        async with self._conversation(request) as pinentry:
            await pinentry.tell("SETDESC", "\n".join(request.facts()))
            await pinentry.suggest("SETPROMPT", "PIN:")
            if request.warnings():
                await pinentry.tell("SETERROR", "\n".join(request.warnings()))
            try:
                typed = await pinentry.command("GETPIN")
            except _RefusedError:
                raise request.cancelled() from None
        return request.pin(typed)

    async def confirm(self, request: ConfirmRequest) -> bool:
        """CONFIRM."""
        async with self._conversation(request) as pinentry:
            await pinentry.tell("SETDESC", request.text())
            await pinentry.suggest("SETOK", "Allow")
            await pinentry.suggest("SETCANCEL", "Refuse")
            try:
                await pinentry.command("CONFIRM")
            except _RefusedError:
                return False
        return True

    @asynccontextmanager
    async def _conversation(self, request: AnyRequest) -> AsyncIterator[_Conversation]:
        """A pinentry that knows where to show itself."""
        with ExitStack() as stack:
            if self._terminal is not None:
                stack.enter_context(free_terminal(self._terminal, request))
            try:
                async with (
                    dialog(
                        request,
                        [self._program],
                        self._environment,
                        "install a pinentry, or set pinentry_program",
                        stdin=subprocess.PIPE,
                    ) as process,
                    asyncio.timeout(self._timeout + _GRACE),
                ):
                    pinentry = _Conversation(process)
                    await pinentry.answer()
                    for option, value in self._options().items():
                        await pinentry.suggest("OPTION", f"{option}={value}")
                    await pinentry.suggest("SETTIMEOUT", str(math.ceil(self._timeout)))
                    await pinentry.suggest("SETTITLE", "replug")
                    yield pinentry
            except TimeoutError:
                raise request.too_late(self._timeout) from None
            except (_FailedError, OSError) as error:
                raise request.unasked(f"{self._program}: {error}") from error

    def _options(self) -> Mapping[str, str]:
        environment = self._environment
        locale = environment.get("LC_ALL") or environment.get("LC_CTYPE") or environment.get("LANG")
        options = {
            "display": environment.get("DISPLAY"),
            "ttyname": self._terminal.path if self._terminal else None,
            "ttytype": environment.get("TERM") if self._terminal else None,
            "lc-ctype": locale,
            "lc-messages": environment.get("LC_ALL") or environment.get("LANG"),
        }
        return {name: value for name, value in options.items() if value}


class _RefusedError(Exception):
    """The person says no."""


class _FailedError(Exception):
    """The program cannot do it, or does not speak the protocol; the text says how."""


class _Conversation:
    """The client's side of Assuan, as far as a pinentry needs it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = process.stdin.fileno(), process.stdout.fileno()
        # PINs pass through here: one buffer, for one answer at a time, never grown or moved.
        self._buffer = bytearray(_LONGEST_ANSWER)
        self._used = 0

    async def suggest(self, command: str, text: str) -> None:
        """A command that some programs do not know, and that the dialog can do without."""
        with suppress(_FailedError):
            await self.tell(command, text)

    async def tell(self, command: str, text: str) -> None:
        """A command about the dialog to come. _FailedError."""
        await self.command(f"{command} {_escaped(text, _LONGEST_LINE - len(command) - 2)}")

    async def command(self, line: str) -> bytearray:
        """The data in the answer. _RefusedError, TimeoutError, _FailedError."""
        # Each command waits for the answer to the one before it, so there is room for it in the pipe.
        os.write(self._input, line.encode() + b"\n")
        return await self.answer()

    async def answer(self) -> bytearray:
        """As `command`, of what comes without one: the greeting."""
        data, used, start = bytearray(LONGEST_PIN + 1), 0, 0
        try:
            while True:
                end = await self._end_of_line(start)
                # Looked at in place: even the start of a line of data would be a copy of some of the PIN.
                if self._says(b"D ", start):
                    used = _unescape(memoryview(self._buffer)[start + 2 : end], data, used)
                elif self._says(b"OK", start):
                    del data[used:]
                    return data
                elif self._says(b"ERR ", start):
                    data[:] = bytes(len(data))
                    raise _error(bytes(self._buffer[start + 4 : end]))
                elif not self._says(b"S ", start) and not self._says(b"#", start):
                    raise _FailedError("it does not speak the pinentry protocol")
                start = end + 1
        finally:
            self._buffer[: self._used] = bytes(self._used)
            self._used = 0

    def _says(self, word: bytes, start: int) -> bool:
        return self._buffer.startswith(word, start, self._used)

    async def _end_of_line(self, start: int) -> int:
        while (end := self._buffer.find(b"\n", start, self._used)) < 0:
            if self._used == len(self._buffer):
                raise _FailedError("its answer is too long")
            await readable(self._output)
            count = os.readv(self._output, [memoryview(self._buffer)[self._used :]])
            if count == 0:
                raise _FailedError("it ended without an answer")
            self._used += count
        return end


def _error(text: bytes) -> Exception:
    """What an ERR line means."""
    number, _, reason = text.decode(errors="replace").partition(" ")
    code = int(number) & 0xFFFF if number.isdecimal() else 0
    if code in _REFUSED:
        return _RefusedError()
    if code == _TIMEOUT:
        return TimeoutError()
    return _FailedError(printable(reason) or f"error {printable(number)}")


def _unescape(line: memoryview, data: bytearray, used: int) -> int:
    """Put the data of a `D` line into `data` after the `used` bytes; how many it holds then."""
    index = 0
    while index < len(line) and used < len(data):
        byte = line[index]
        index += 1
        if byte == ord("%"):
            digits = bytes(line[index : index + 2])
            if re.fullmatch(rb"[0-9A-Fa-f]{2}", digits) is None:
                raise _FailedError("its answer is badly escaped")
            byte = int(digits, 16)
            index += 2
        data[used] = byte
        used += 1
    return used


def _escaped(text: str, longest: int) -> str:
    """`text` for a command line, cut where it would be longer than `longest` bytes."""
    escaped, room = "", longest
    for character in text:
        piece = f"%{ord(character):02X}" if character in "%\r\n" else character
        room -= len(piece.encode())
        if room < 0:
            break
        escaped += piece
    return escaped
