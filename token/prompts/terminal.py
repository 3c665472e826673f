"""Asking on the terminal of the asking process, as pinentry-curses does for gpg.

ssh waits silently for its agent, so the terminal is free. This is checked: the process must be in the
foreground, and the terminal in its usual line mode. A shell's command line, an editor, or ssh with a session
read single keys; they would receive part of the PIN, and pass it to a remote host.
"""

from __future__ import annotations

import asyncio
import os
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from replug.protocol.secrets import wipe
from replug.token.errors import NobodyAskedError
from replug.token.pins.pin import LONGEST_PIN, Pin
from replug.token.prompts.dialog import readable, writable
from replug.token.prompts.place import Terminal
from replug.token.prompts.request import AnyRequest, ConfirmRequest, PinRequest

_LOCAL_FLAGS, _CONTROL_CHARACTERS = 3, 6  # indices into the result of tcgetattr
_ESCAPE = 0x1B
_BACKSPACE, _DELETE = 0x08, 0x7F


@contextmanager
def free_terminal(terminal: Terminal) -> Iterator[OpenTerminal]:
    """The terminal, opened, if no other program is using it; its mode is restored afterwards.

    Raises NobodyAskedError if it cannot be used.
    """
    path = terminal.path
    if not terminal.foreground:
        raise NobodyAskedError(f"the program is not in the foreground of {path}")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise NobodyAskedError(f"{path} does not open: {error.strerror}") from error
    try:
        mode = termios.tcgetattr(descriptor)
        if os.fstat(descriptor).st_rdev != terminal.device:
            raise NobodyAskedError(f"{path} is another terminal by now")
        if not mode[_LOCAL_FLAGS] & termios.ICANON:
            raise NobodyAskedError(f"a program reads single keys on {path}")
        if _in_background(descriptor):
            raise NobodyAskedError(f"the agent itself is in the background of {path}")
        opened = OpenTerminal(path, descriptor, mode)
        try:
            yield opened
        finally:
            opened.restore()
    except termios.error as error:
        raise NobodyAskedError(f"{path} is no terminal: {error.args[-1]}") from error
    finally:
        os.close(descriptor)


def _in_background(descriptor: int) -> bool:
    """Whether reading would stop this process (SIGTTIN); only on our own controlling terminal."""
    try:
        return os.tcgetpgrp(descriptor) != os.getpgrp()
    except OSError:
        return False


class OpenTerminal:
    """A terminal to write to and read keys from."""

    def __init__(self, path: str, descriptor: int, mode: list[Any]) -> None:
        """`mode` is what tcgetattr returned; `restore` sets it again."""
        self.path = path
        self.descriptor = descriptor
        self.mode = mode
        self._our_mode: list[Any] | None = None

    def read_single_keys(self) -> None:
        """Receive keys one by one, without echo and without signals: ^C must end the question only.

        What was typed before the question is discarded.
        """
        mode = [*self.mode[:_CONTROL_CHARACTERS], list(self.mode[_CONTROL_CHARACTERS])]
        mode[_LOCAL_FLAGS] &= ~(
            termios.ICANON | termios.ECHO | termios.ECHONL | termios.ISIG | termios.IEXTEN
        )
        mode[_CONTROL_CHARACTERS][termios.VMIN], mode[_CONTROL_CHARACTERS][termios.VTIME] = 1, 0
        # TCSADRAIN and TCSAFLUSH wait for output, which ^S may be holding.
        termios.tcsetattr(self.descriptor, termios.TCSANOW, mode)
        termios.tcflush(self.descriptor, termios.TCIFLUSH)
        self._our_mode = termios.tcgetattr(self.descriptor)

    def restore(self) -> None:
        """Set the first mode again if we changed it, and no other program, such as a shell, did meanwhile."""
        with suppress(termios.error):  # it was closed
            if self._our_mode is not None and self._our_mode == termios.tcgetattr(self.descriptor):
                termios.tcsetattr(self.descriptor, termios.TCSANOW, self.mode)

    async def write(self, text: str) -> None:
        """Show `text`; OSError if the terminal is gone."""
        rest = text.encode()
        while rest:
            try:
                rest = rest[os.write(self.descriptor, rest) :]
            except BlockingIOError:
                await writable(self.descriptor)

    async def read(self, keys: bytearray) -> int:
        """Fill `keys` with what is typed; returns the number of bytes, 0 if the terminal is gone."""
        while True:
            await readable(self.descriptor)
            try:
                return os.readv(self.descriptor, [keys])
            except BlockingIOError:
                continue
            except OSError:
                return 0


class TerminalPrompter:
    """A question on a terminal, answered by a line typed there."""

    def __init__(self, terminal: Terminal, timeout: float) -> None:
        """`timeout` is how long the question may stay unanswered, in seconds."""
        self.terminal = terminal
        self._timeout = timeout

    def __str__(self) -> str:
        return f"the terminal {self.terminal.path}"

    def check(self) -> None:
        """Raise NobodyAskedError if the terminal is in use."""
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
        with free_terminal(self.terminal) as terminal:
            terminal.read_single_keys()
            line = _Line(terminal.mode[_CONTROL_CHARACTERS])
            end = "\n"
            try:
                async with asyncio.timeout(self._timeout):
                    await terminal.write(text)
                    while not line.over:
                        shown = await line.take(terminal)
                        if echo:
                            await terminal.write(shown)
            except TimeoutError:
                end = "\n(no answer in time)\n"
                raise request.too_late(self._timeout) from None
            except OSError:
                line.lost = True
            finally:
                if not line.entered:
                    line.wipe()
                with suppress(OSError):
                    os.write(terminal.descriptor, end.encode())
        if line.lost:
            raise request.failure(f"{terminal.path} was closed")
        return line.typed if line.entered else None


class _Line:
    """The line being typed, in one buffer that is never copied or moved."""

    def __init__(self, control_characters: list[Any]) -> None:
        def keys(*indices: int) -> bytes:
            return b"".join(control_characters[index] for index in indices).replace(b"\0", b"")

        self._cancel = keys(termios.VINTR, termios.VQUIT, termios.VSUSP)
        self._end_of_file = keys(termios.VEOF)
        self._erase = keys(termios.VERASE) + bytes([_BACKSPACE, _DELETE])
        self._kill = keys(termios.VKILL)
        self._buffer = bytearray(LONGEST_PIN + 1)
        self._used = 0
        self.entered = self.cancelled = self.lost = False

    @property
    def over(self) -> bool:
        return self.entered or self.cancelled or self.lost

    @property
    def typed(self) -> bytearray:
        del self._buffer[self._used :]
        return self._buffer

    def wipe(self) -> None:
        wipe(self._buffer)

    async def take(self, terminal: OpenTerminal) -> str:
        """Read keys into the line; returns the text to echo."""
        keys = bytearray(64)
        count = await terminal.read(keys)
        self.lost = count == 0
        shown, index = "", 0
        while index < count and not self.over:
            if keys[index] == _ESCAPE and index + 1 < count:
                index = _after_function_key(keys, index + 1)
            else:
                shown += self._take_key(keys[index])
                index += 1
        wipe(keys)
        return shown

    def _take_key(self, key: int) -> str:
        if key in b"\r\n":
            self.entered = True
        elif key == _ESCAPE or key in self._cancel or (key in self._end_of_file and self._used == 0):
            self.cancelled = True
        elif key in self._erase:
            return self._take_back()
        elif key in self._kill:
            return "".join(self._take_back() for _ in range(self._used))
        elif key >= 0x20 and self._used < len(self._buffer):
            self._buffer[self._used] = key
            self._used += 1
            return chr(key) if key < 0x7F else ""
        return ""

    def _take_back(self) -> str:
        """Erase the last character, which may be several bytes in UTF-8."""
        shown = "\b \b" if self._used else ""
        while self._used:
            self._used -= 1
            last = self._buffer[self._used]
            self._buffer[self._used] = 0
            if last & 0xC0 != 0x80:
                break
        return shown


def _after_function_key(keys: bytearray, index: int) -> int:
    """The index after an escape sequence (ECMA-48) whose second byte is at `index`."""
    if keys[index] in b"[O":
        index += 1
        while index < len(keys) and 0x20 <= keys[index] < 0x40:
            index += 1
    return index + 1
