"""A slot of vsmartcard's reader, and the hand that puts cards into it and pulls them out.

We connect to vpcd when a card is in. It sends messages with a 16-bit length before them: one byte is an
order, more are an APDU. It takes the slot for empty when the order for the ATR is not answered.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum

from rigs.piv_card import ATR, Card, PowerLostError

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger

Dial = Callable[[], socket.socket | None]
"""Makes a connection to the reader for one slot; None: the reader is gone."""


_REGULARLY = 0.45  # seconds; pcscd looks every 0.4 (PCSCLITE_STATUS_POLL_RATE)


class Order(IntEnum):
    """What vpcd wants, where it does not pass on an APDU."""

    POWER_OFF = 0
    POWER_ON = 1
    RESET = 2
    GET_ATR = 4


class CardSlot:
    """Where a card goes. All methods may be called at any time, also from an action of `at_next`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._card: Card | None = None
        self._connection: socket.socket | None = None
        self._cuts = 0
        self._absence_unseen = False
        self._removed = 0.0
        """When the last card was pulled out, by the monotonic clock."""
        self._powered = False
        self.found = 0.0
        """When the reader last found a card here and powered it, by the monotonic clock."""
        self._dial: Dial | None = None
        self._actions: dict[int, Callable[[], object]] = {}

    @property
    def card(self) -> Card | None:
        """The card in the slot."""
        return self._card

    def insert(self, card: Card) -> None:
        """Puts a card into the empty slot."""
        with self._changed:
            assert self._card is None, "there is a card in the slot"
            self._card = card
            self._changed.notify_all()

    def remove(self) -> Card:
        """Pulls the card out, in the middle of a command if there is one.

        However soon it comes back, pcscd notices that it was gone.
        """
        with self._changed:
            card, self._card = self._card, None
            assert card is not None, "there is no card in the slot"
            self._absence_unseen, self._removed = True, time.monotonic()
            self._powered = False
            self._cut()
        card.power_off()
        return card

    def swap(self, card: Card) -> Card:
        """Replaces the card by another one, at once; returns the one that was there."""
        before = self.remove()
        self.insert(card)
        return before

    def lose_power(self) -> None:
        """Cuts the card's power for a moment. In the middle of a command only that command shows it."""
        with self._changed:
            assert self._card is not None, "there is no card in the slot"
            card = self._card
            self._cut()
        card.power_off()

    def await_power(self, within: float = 15) -> None:
        """Waits until the reader has found the card and powers it."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._powered, within), "the reader finds no card"

    def at_next(self, instruction: int, action: Callable[[], object]) -> None:
        """Has `action` done once, when the next command with this instruction has arrived."""
        self._actions[instruction] = action

    def serve(self, dial: Dial) -> None:
        """Connects this slot to a reader."""
        with self._changed:
            self._dial = dial
        threading.Thread(target=self._serve, args=(dial,), daemon=True).start()

    def close(self) -> None:
        """Takes the reader away; a card in the slot stays where it is, without power."""
        with self._changed:
            self._dial = None
            self._powered = False
            card = self._card
            self._cut()
        if card is not None:
            card.power_off()

    def _cut(self) -> None:
        self._cuts += 1
        self._changed.notify_all()
        if self._connection is not None:
            with suppress(OSError):  # the reader may have gone before
                self._connection.shutdown(socket.SHUT_RD)  # wakes a thread that reads

    def _serve(self, dial: Dial) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._dial is not dial or self._card is not None or self._absence_unseen
                )
                if self._dial is not dial:
                    return
                card, cuts = (None if self._absence_unseen else self._card), self._cuts
            connection = dial()
            if connection is None:
                return
            with connection, suppress(ConnectionError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                self._attend(connection, card, cuts)

    def _attend(self, connection: socket.socket, card: Card | None, cuts: int) -> None:
        """Answers for the card until it is cut off; for an empty slot, lets vpcd see that once."""
        with self._changed:
            if self._cuts != cuts:
                return
            self._connection = connection
        try:
            while message := _receive(connection):
                answer = self._answer(card, message)
                with self._changed:
                    if card is None:
                        # pcscd asks for several reasons; only what it finds when it asks regularly counts.
                        # Else it takes the next card for the one before, and never powers it.
                        self._absence_unseen = time.monotonic() - self._removed < _REGULARLY
                        return
                    if self._cuts != cuts:
                        # Half an answer makes vpcd report an error; to it, no answer is an empty success.
                        connection.sendall(b"\0\2")
                        return
                    if message == bytes([Order.POWER_ON]) and not self._powered:
                        self._powered, self.found = True, time.monotonic()
                        self._changed.notify_all()
                if answer:
                    connection.sendall(struct.pack(">H", len(answer)) + answer)
        finally:
            with self._changed:
                self._connection = None

    def _answer(self, card: Card | None, message: bytes) -> bytes:
        if card is None:
            return b""
        if len(message) > 1:
            if action := self._actions.pop(message[1], None):
                action()
            try:
                return card.answer(message)
            except PowerLostError:
                return b""
        if message[0] == Order.GET_ATR:
            return ATR
        card.power_off()
        return b""


def _receive(connection: socket.socket) -> bytes:
    """The next message; nothing when the connection ends."""
    # vpcd sends length and message apart; without this each would wait 40 ms for our acknowledgement.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    head = connection.recv(2, socket.MSG_WAITALL)
    if len(head) < 2:
        return b""
    return connection.recv(int.from_bytes(head), socket.MSG_WAITALL)
