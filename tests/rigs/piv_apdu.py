"""ISO 7816-4 around an application on a card: what an APDU says, chained commands, chained responses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

_CHAINED = 0x10
_GET_RESPONSE = 0xC0
_LONGEST_SHORT = 256
_LONGEST_EXTENDED = 65536


class Status(IntEnum):
    """The status words used here (ISO 7816-4, NIST SP 800-73-4 part 2 table 3)."""

    OK = 0x9000
    WRONG_LENGTH = 0x6700
    SECURITY_NOT_SATISFIED = 0x6982
    BLOCKED = 0x6983
    WRONG_DATA = 0x6A80
    NOT_FOUND = 0x6A82
    WRONG_P1_P2 = 0x6A86
    NO_REFERENCE_DATA = 0x6A88
    UNKNOWN_INSTRUCTION = 0x6D00
    TRIES_LEFT = 0x63C0  # plus their number
    MORE_DATA = 0x6100  # plus its length, or 0 for 256 bytes and more


class RefusedError(Exception):
    """The card's answer is this status word and no data."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"{status:04X}")


@dataclass(frozen=True)
class Command:
    """A command APDU; `longest` is how many bytes of data the answer may have."""

    chained: bool
    instruction: int
    p1: int
    p2: int
    data: bytes
    longest: int

    @classmethod
    def decode(cls, apdu: bytes) -> Command:
        """Takes cases 1 to 4, short and extended; without an Le the answer may be as long as the form allows.

        Raises RefusedError when the lengths do not fit.
        """
        if len(apdu) < 4:
            raise RefusedError(Status.WRONG_LENGTH)
        data, longest = _body(apdu[4:])
        return cls(bool(apdu[0] & _CHAINED), apdu[1], apdu[2], apdu[3], data, longest)


def _body(body: bytes) -> tuple[bytes, int]:
    if len(body) >= 3 and body[0] == 0:
        width, longest, body = 2, _LONGEST_EXTENDED, body[1:]
    else:
        width, longest = 1, _LONGEST_SHORT
    if len(body) <= width:
        return b"", int.from_bytes(body) or longest
    length = int.from_bytes(body[:width])
    data, expected = body[width : width + length], body[width + length :]
    if length == 0 or len(data) < length or len(expected) not in (0, width):
        raise RefusedError(Status.WRONG_LENGTH)
    return data, int.from_bytes(expected) or longest


class Chaining:
    """Gives `execute` whole commands, and its answers to the reader in the pieces it asks for."""

    def __init__(self, execute: Callable[[Command], bytes]) -> None:
        """`execute` returns the data of an answer that is OK, and raises RefusedError for another."""
        self._execute = execute
        self.reset()

    def reset(self) -> None:
        """Forgets what was under way."""
        self._head: Command | None = None
        self._rest = b""

    def answer(self, apdu: bytes) -> bytes:
        """The response APDU to a command APDU."""
        try:
            command = Command.decode(apdu)
            if command.instruction != _GET_RESPONSE:
                whole = self._gather(command)
                self._rest = b"" if whole is None else self._execute(whole)
        except RefusedError as refused:
            self.reset()
            return refused.status.to_bytes(2)
        piece, self._rest = self._rest[: command.longest], self._rest[command.longest :]
        status = Status.MORE_DATA + (len(self._rest) if len(self._rest) < 256 else 0)
        return piece + (status if self._rest else Status.OK).to_bytes(2)

    def _gather(self, command: Command) -> Command | None:
        """The command with the data of those chained to it; None while more of them follow."""
        head, self._head = self._head, None
        data = command.data
        if head is not None:
            if (head.instruction, head.p1, head.p2) != (command.instruction, command.p1, command.p2):
                raise RefusedError(Status.WRONG_DATA)
            data = head.data + data
        whole = Command(command.chained, command.instruction, command.p1, command.p2, data, command.longest)
        if command.chained:
            self._head = whole
            return None
        return whole
