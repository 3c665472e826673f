"""The SSH data types of RFC 4251 section 5: a strict reader and a writer over paramiko's `Message`.

`Message` itself reports no errors: a read past the end returns zeros, padding or too few bytes.
`Reader` checks what remains before every read, so each parser built on it either consumes exactly its
input or raises `ProtocolError`.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from replug.protocol.constants import MAX_NAME
from replug.protocol.secrets import wipe

if TYPE_CHECKING:
    from paramiko.message import Message

T = TypeVar("T")

__all__ = ["ProtocolError", "Reader", "Writer", "mpint", "string"]


def _load_message_class() -> type[Message]:
    """Return paramiko's `Message` without running the package's `__init__`.

    That `__init__` imports the whole client, and `paramiko.util` the configuration parser with `invoke`:
    some 300 ms and 30 MiB that an agent never uses. So the submodule is imported from a package object that
    was never executed, next to an empty `paramiko.config`. Both are taken out of `sys.modules` again: an
    `import paramiko` later in the same process loads the real thing.
    """
    if "paramiko" in sys.modules:
        return _import_message_class()
    spec = importlib.util.find_spec("paramiko")
    assert spec is not None, "paramiko is not installed"
    config = ModuleType("paramiko.config")
    config.SSHConfig = None  # type: ignore[attr-defined]  # paramiko.util imports the name, for others to use
    sys.modules["paramiko"] = importlib.util.module_from_spec(spec)
    sys.modules["paramiko.config"] = config
    try:
        return _import_message_class()
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "paramiko"]:
            del sys.modules[name]


def _import_message_class() -> type[Message]:
    from paramiko.message import Message

    message_class: type[Message] = Message
    return message_class


_Message = _load_message_class()


class ProtocolError(ValueError):
    """The bytes are not what the protocol allows; the message says what was wrong with them."""


class Reader:
    """Take the fields of `data` in order; every method raises `ProtocolError` if its field is not there."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._message = _Message(data)
        # Not get_bytes, which is for messages that may be too short.
        self._get: Callable[[int], bytes] = self._message.packet.read
        self._secrets: list[bytearray] = []
        self.remaining = len(data)
        """The number of bytes not yet taken."""

    def _claim(self, count: int, what: str) -> None:
        if count > self.remaining:
            raise ProtocolError(f"truncated: {what} needs {count} bytes, {self.remaining} remain")
        self.remaining -= count

    def _take(self, count: int, what: str) -> bytes:
        self._claim(count, what)
        return self._get(count)

    def byte(self) -> int:
        """Take one byte, as a number."""
        self._claim(1, "a byte")
        return self._get(1)[0]

    def boolean(self) -> bool:
        """Take one byte as a truth value; any value but 0 is true, as RFC 4251 demands."""
        return self._take(1, "a boolean") != b"\0"

    def uint32(self) -> int:
        """Take four bytes as an unsigned number."""
        self._claim(4, "a uint32")
        return int.from_bytes(self._get(4), "big")

    def uint64(self) -> int:
        """Take eight bytes as an unsigned number."""
        return int.from_bytes(self._take(8, "a uint64"), "big")

    def string(self) -> bytes:
        """Take a string: a uint32 length and that many bytes."""
        size = self.uint32()
        self._claim(size, "a string")
        return self._get(size)

    def secret(self) -> bytearray:
        """Take a string without NUL bytes into a buffer that can be wiped, without another copy of it."""
        size = self.uint32()
        self._claim(size, "a string")
        value = bytearray(size)
        self._message.packet.readinto(value)
        self._secrets.append(value)
        if 0 in value:
            raise ProtocolError("a string that must not hold a NUL byte holds one")
        return value

    def wipe_secrets(self) -> None:
        """Overwrite the secrets that were taken: the message they came from was malformed."""
        for secret in self._secrets:
            wipe(secret)

    def wipe(self) -> None:
        """Overwrite the data if it was a bytearray: the reader then has its own copy."""
        with self._message.packet.getbuffer() as data:
            wipe(data)

    def cstring(self) -> bytes:
        """Take a string without NUL bytes, at which a C program would stop reading."""
        value = self.string()
        if b"\0" in value:
            raise ProtocolError("a string that must not hold a NUL byte holds one")
        return value

    def text(self) -> str:
        """Take a string of UTF-8 without NUL characters."""
        try:
            text = self.string().decode()
        except UnicodeDecodeError as error:
            raise ProtocolError(f"text is not UTF-8: {error.reason} at byte {error.start}") from error
        if "\0" in text:
            raise ProtocolError("a string that must not hold a NUL byte holds one")
        return text

    def name(self) -> str:
        """Take a string that names a type or an extension, which decides what follows it."""
        text = self.text()
        if len(text) > MAX_NAME:
            raise ProtocolError(f"a name of {len(text)} characters")
        return text

    def skip_string(self) -> int:
        """Pass over a string without a copy of it, a secret that somebody else is to read; its length."""
        size = self.uint32()
        self._claim(size, "a string")
        self._message.packet.seek(size, 1)
        return size

    def mpint(self) -> int:
        """Take a non-negative multiple precision integer in its one shortest form."""
        value = self.string()
        if value and value[0] & 0x80:
            raise ProtocolError("negative mpint")
        if value and value[0] == 0 and not (len(value) > 1 and value[1] & 0x80):
            raise ProtocolError("mpint with an unnecessary leading zero byte")
        # Message.get_mpint takes quadratic time: seconds for a message of the largest size.
        return int.from_bytes(value, "big")

    def strings(self, most: int) -> tuple[bytes, ...]:
        """Take strings, at most `most`, until the end of the data."""
        return self.repeated(self.string, most)

    def repeated(self, take: Callable[[], T], most: int) -> tuple[T, ...]:
        """Call `take`, at most `most` times, until the end of the data.

        The limit applies before the rest is read: a message of empty strings would otherwise take a third
        of a second.
        """
        values: list[T] = []
        while self.remaining:
            if len(values) == most:
                raise ProtocolError(f"more than {most} items in a list")
            values.append(take())
        return tuple(values)

    def rest(self) -> bytes:
        """Take all that remains."""
        return self._take(self.remaining, "the rest")

    def check_end(self) -> None:
        """Raise `ProtocolError` unless everything has been taken."""
        if self.remaining:
            raise ProtocolError(f"{self.remaining} bytes too many")


def string(value: bytes) -> bytes:
    """Return a string: a uint32 length and the bytes."""
    return len(value).to_bytes(4, "big") + value


def mpint(value: int) -> bytes:
    """Return a multiple precision integer; `OverflowError` if it is negative."""
    # One bit more than the number has, rounded up, keeps the sign bit clear; zero is the empty string.
    return string(value.to_bytes(value.bit_length() // 8 + 1, "big") if value else b"")


class Writer:
    """Put fields one after another; every method returns the writer, `bytes(writer)` the data."""

    def __init__(self) -> None:
        self._message = _Message()
        self._put: Callable[[bytes | bytearray], object] = self._message.add_bytes

    def __bytes__(self) -> bytes:
        value: bytes = self._message.asbytes()
        return value

    def raw(self, value: bytes | bytearray) -> Writer:
        """Put bytes as they are."""
        self._put(value)
        return self

    def byte(self, value: int) -> Writer:
        """Put one byte; `ValueError` if it is not 0 to 255."""
        self._put(bytes((value,)))
        return self

    def boolean(self, value: bool) -> Writer:
        """Put a truth value as 0 or 1."""
        return self.raw(b"\1" if value else b"\0")

    def uint32(self, value: int) -> Writer:
        """Put an unsigned number of four bytes; `OverflowError` if it does not fit."""
        self._put(value.to_bytes(4, "big"))
        return self

    def uint64(self, value: int) -> Writer:
        """Put an unsigned number of eight bytes; `OverflowError` if it does not fit."""
        return self.raw(value.to_bytes(8, "big"))

    def string(self, value: bytes | bytearray) -> Writer:
        """Put a uint32 length and the bytes."""
        self._put(len(value).to_bytes(4, "big"))
        self._put(value)
        return self

    def strings(self, values: Iterable[bytes]) -> Writer:
        """Put each of the values as a string, without a count."""
        for value in values:
            self.string(value)
        return self

    def text(self, value: str) -> Writer:
        """Put text as a string of UTF-8."""
        return self.string(value.encode())

    def mpint(self, value: int) -> Writer:
        """Put a multiple precision integer; `OverflowError` if it is negative."""
        return self.raw(mpint(value))
