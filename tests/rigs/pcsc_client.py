"""Another program that uses the same card: PC/SC as it is, by way of libpcsclite (pcsclite's winscard.h).

Started as `python -I pcsc_client.py READER await present|empty`, `... reset`, `... transmit HEX...`, which
prints the response APDUs, or `... hold` or `... transact`, which keep all others from the card, or from
sending it commands, until their input ends.
"""

from __future__ import annotations

import ctypes
import sys
import time

_SCOPE_SYSTEM = 2
_SHARE_EXCLUSIVE, _SHARE_SHARED = 1, 2
_PROTOCOL_T1 = 2
_LEAVE_CARD, _RESET_CARD = 0, 1
_STATE_EMPTY, _STATE_PRESENT = 0x10, 0x20
_TIMEOUT = 0x8010000A
_PATIENCE = 15.0  # seconds

DWORD = ctypes.c_ulong


class ReaderState(ctypes.Structure):
    """SCARD_READERSTATE."""

    _fields_ = (
        ("reader", ctypes.c_char_p),
        ("user_data", ctypes.c_void_p),
        ("current", DWORD),
        ("event", DWORD),
        ("atr_length", DWORD),
        ("atr", ctypes.c_ubyte * 33),
    )


class IoRequest(ctypes.Structure):
    """SCARD_IO_REQUEST."""

    _fields_ = (("protocol", ctypes.c_ulong), ("length", ctypes.c_ulong))


class PcscError(Exception):
    """A function of libpcsclite did not return SCARD_S_SUCCESS."""


class Client:
    """A context of pcscd's."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libpcsclite.so.1")
        self._context = ctypes.c_long()
        self._call("SCardEstablishContext", DWORD(_SCOPE_SYSTEM), None, None, ctypes.byref(self._context))

    def await_state(self, reader: str, wanted: int) -> None:
        """Waits until the reader's state has the `wanted` bit."""
        state = ReaderState(reader=reader.encode())
        end = time.monotonic() + _PATIENCE
        while not state.event & wanted:
            left = int((end - time.monotonic()) * 1000)
            if left <= 0:
                raise PcscError(f"{reader} stays in state {state.event:#x}")
            state.current = state.event
            self._call("SCardGetStatusChange", self._context, DWORD(left), ctypes.byref(state), DWORD(1))

    def use(self, reader: str, apdus: list[bytes], at_the_end: int) -> list[bytes]:
        """Connects, transmits, and disconnects with the card left as it is or reset; the answers."""
        card, protocol = ctypes.c_long(), DWORD()
        self._call(
            "SCardConnect", self._context, reader.encode(), DWORD(_SHARE_SHARED), DWORD(_PROTOCOL_T1),
            ctypes.byref(card), ctypes.byref(protocol),
        )  # fmt: skip
        self._call("SCardBeginTransaction", card)
        answers = [self._transmit(card, apdu) for apdu in apdus]
        self._call("SCardEndTransaction", card, DWORD(at_the_end))
        self._call("SCardDisconnect", card, DWORD(_LEAVE_CARD))
        return answers

    def hold(self, reader: str) -> None:
        """Connects so that no other program can."""
        card, protocol = ctypes.c_long(), DWORD()
        self._call(
            "SCardConnect", self._context, reader.encode(), DWORD(_SHARE_EXCLUSIVE), DWORD(_PROTOCOL_T1),
            ctypes.byref(card), ctypes.byref(protocol),
        )  # fmt: skip

    def transact(self, reader: str) -> None:
        """Connects, and begins a transaction: other programs wait."""
        card, protocol = ctypes.c_long(), DWORD()
        self._call(
            "SCardConnect", self._context, reader.encode(), DWORD(_SHARE_SHARED), DWORD(_PROTOCOL_T1),
            ctypes.byref(card), ctypes.byref(protocol),
        )  # fmt: skip
        self._call("SCardBeginTransaction", card)

    def _transmit(self, card: ctypes.c_long, apdu: bytes) -> bytes:
        answer, length = ctypes.create_string_buffer(258), DWORD(258)
        header = IoRequest(_PROTOCOL_T1, ctypes.sizeof(IoRequest))
        self._call(
            "SCardTransmit", card, ctypes.byref(header), apdu, DWORD(len(apdu)), None, answer,
            ctypes.byref(length),
        )  # fmt: skip
        return answer.raw[: length.value]

    def _call(self, function: str, *arguments: object) -> None:
        code = getattr(self._library, function)(*arguments) & 0xFFFFFFFF
        if code:
            raise PcscError(f"{function}: {code:#x}")


def main() -> None:
    """Does what the arguments say."""
    reader, action, *rest = sys.argv[1:]
    client = Client()
    match action:
        case "await":
            client.await_state(reader, _STATE_PRESENT if rest == ["present"] else _STATE_EMPTY)
        case "reset":
            client.use(reader, [], _RESET_CARD)
        case "hold":
            client.hold(reader)
            print("held", flush=True)
            sys.stdin.read()
        case "transact":
            client.transact(reader)
            print("held", flush=True)
            sys.stdin.read()
        case "transmit":
            for answer in client.use(reader, [bytes.fromhex(apdu) for apdu in rest], _LEAVE_CARD):
                print(answer.hex())


if __name__ == "__main__":
    main()
