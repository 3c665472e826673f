"""The client's side of Assuan, the protocol of GnuPG's programs: the part that a pinentry needs.

Each command is one line, answered by `D` lines with data and then `OK` or `ERR code text`
(https://www.gnupg.org/documentation/manuals/assuan/).
"""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import suppress

from replug.protocol.secrets import wipe
from replug.token.identity import printable
from replug.token.pins.pin import LONGEST_PIN
from replug.token.prompts.dialog import readable

_LONGEST_LINE = 1000  # bytes, with its end (ASSUAN_LINELENGTH)
_LONGEST_ANSWER = 4 * _LONGEST_LINE

# Codes of libgpg-error: the low half of the number in ERR; the upper half is the source of the error.
_TIMEOUT = 62
_REFUSED = (99, 114, 198)  # GPG_ERR_CANCELED, NOT_CONFIRMED, FULLY_CANCELED


class RefusedError(Exception):
    """The user declines."""


class FailedError(Exception):
    """The program cannot do it, or does not speak the protocol."""


class _EndedError(FailedError):
    """The program ended instead of answering."""


class Conversation:
    """Commands to a program and its answers, on its standard input and output."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = process.stdin.fileno(), process.stdout.fileno()
        # PINs pass through this buffer: it holds one answer at a time and is never grown or moved.
        self._buffer = bytearray(_LONGEST_ANSWER)
        self._used = 0

    async def suggest(self, command: str, text: str) -> None:
        """Send a command that the dialog works without: some programs do not know it."""
        with suppress(FailedError):
            await self.tell(command, text)

    async def tell(self, command: str, text: str) -> None:
        """Send a command that prepares the dialog. FailedError."""
        await self.command(f"{command} {_escaped(text, _LONGEST_LINE - len(command) - 2)}")

    async def question(self, command: str) -> bytearray:
        """The user's answer. RefusedError, also when ^C on its terminal ended the program."""
        try:
            return await self.command(command)
        except _EndedError:
            raise RefusedError from None

    async def command(self, line: str) -> bytearray:
        """Send a line; returns the data in the answer. RefusedError, TimeoutError, FailedError."""
        # Each command waits for the answer to the previous one, so the pipe has room for it.
        os.write(self._input, line.encode() + b"\n")
        return await self.answer()

    async def answer(self) -> bytearray:
        """As `command`, without sending anything: for the greeting."""
        data, used, start = bytearray(LONGEST_PIN + 1), 0, 0
        try:
            while True:
                end = await self._end_of_line(start)
                # Parsed in place: even a slice of the line's start would copy part of the PIN.
                if self._says(b"D ", start):
                    used = _unescape(memoryview(self._buffer)[start + 2 : end], data, used)
                elif self._says(b"OK", start):
                    del data[used:]
                    return data
                elif self._says(b"ERR ", start):
                    raise _error(bytes(self._buffer[start + 4 : end]))
                elif not self._says(b"S ", start) and not self._says(b"#", start):
                    raise FailedError("it does not speak the pinentry protocol")
                start = end + 1
        except BaseException:
            wipe(data)
            raise
        finally:
            wipe(self._buffer, 0, self._used)
            self._used = 0

    def _says(self, word: bytes, start: int) -> bool:
        return self._buffer.startswith(word, start, self._used)

    async def _end_of_line(self, start: int) -> int:
        while (end := self._buffer.find(b"\n", start, self._used)) < 0:
            if self._used == len(self._buffer):
                raise FailedError("its answer is too long")
            await readable(self._output)
            count = os.readv(self._output, [memoryview(self._buffer)[self._used :]])
            if count == 0:
                raise _EndedError("it ended without an answer")
            self._used += count
        return end


def _error(text: bytes) -> Exception:
    """The exception for an ERR line."""
    number, _, reason = text.decode(errors="replace").partition(" ")
    code = int(number) & 0xFFFF if number.isdecimal() else 0
    if code in _REFUSED:
        return RefusedError()
    if code == _TIMEOUT:
        return TimeoutError()
    return FailedError(printable(reason) or f"error {printable(number)}")


def _unescape(line: memoryview, data: bytearray, used: int) -> int:
    """Append the data of a `D` line to the `used` bytes in `data`; returns the new number of bytes."""
    index = 0
    while index < len(line) and used < len(data):
        byte = line[index]
        index += 1
        if byte == ord("%"):
            digits = bytes(line[index : index + 2])
            if re.fullmatch(rb"[0-9A-Fa-f]{2}", digits) is None:
                raise FailedError("its answer is badly escaped")
            byte = int(digits, 16)
            index += 2
        data[used] = byte
        used += 1
    return used


def _escaped(text: str, longest: int) -> str:
    """`text` escaped for a command line, cut to at most `longest` bytes."""
    escaped, room = "", longest
    for character in text:
        piece = f"%{ord(character):02X}" if character in "%\r\n" else character
        room -= len(piece.encode())
        if room < 0:
            break
        escaped += piece
    return escaped
