"""A line that is being typed, key by key, without I/O."""

from __future__ import annotations

import termios
from enum import StrEnum
from typing import Any

from replug.protocol.secrets import wipe

_ESCAPE = 0x1B
_BACKSPACE, _DELETE = 0x08, 0x7F


class Outcome(StrEnum):
    """How a conversation ended."""

    ENTERED = "entered"
    CANCELLED = "cancelled"
    LATE = "late"
    LOST = "lost"  # the terminal was closed
    UNUSABLE = "unusable"
    DONE = "done"  # and nothing was asked


class TypedLine:
    """The line being typed, in one buffer that is never copied or moved."""

    def __init__(self, control_characters: list[Any], most: int) -> None:
        def keys(*indices: int) -> bytes:
            return b"".join(control_characters[index] for index in indices).replace(b"\0", b"")

        self._cancel = keys(termios.VINTR, termios.VQUIT, termios.VSUSP)
        self._end_of_file = keys(termios.VEOF)
        self._erase = keys(termios.VERASE) + bytes([_BACKSPACE, _DELETE])
        self._kill = keys(termios.VKILL)
        self._buffer = bytearray(most)
        self._used = 0
        self.outcome: Outcome | None = None
        """How it ended; None while it goes on."""

    @property
    def typed(self) -> bytearray:
        """Without its unused end."""
        del self._buffer[self._used :]
        return self._buffer

    def wipe(self) -> None:
        """Forget what was typed."""
        wipe(self._buffer)

    def take(self, keys: bytearray, count: int) -> str:
        """Take the first `count` of the `keys`, none if there can be no more; returns the text to echo."""
        if count == 0:
            self.outcome = Outcome.LOST
        shown, index = "", 0
        while index < count and self.outcome is None:
            if keys[index] == _ESCAPE and index + 1 < count:
                index = _after_function_key(keys, index + 1)
            else:
                shown += self._take_key(keys[index])
                index += 1
        return shown

    def _take_key(self, key: int) -> str:
        if key in b"\r\n":
            self.outcome = Outcome.ENTERED
        elif key == _ESCAPE or key in self._cancel or (key in self._end_of_file and self._used == 0):
            self.outcome = Outcome.CANCELLED
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
