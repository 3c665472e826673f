"""A smart card reader of a new machine, and a card for it."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from rigs.booted import Booted
from rigs.pcscd_inside import PORT
from rigs.piv_card import Card
from rigs.piv_keys import Slot
from rigs.piv_slot import CardSlot


class Reader:
    """The virtual reader of that machine's pcscd."""

    def __init__(self) -> None:
        self.slot = CardSlot()
        self.card = Card()
        self._attached = False

    def attach(self, machine: Booted) -> None:
        """Plugs it in."""
        # The machine has the network of the one it runs on.
        assert not _somebody_listens(), f"another virtual reader has port {PORT} here: end its pcscd"
        for command in (
            "apt-get install --yes --quiet vsmartcard-vpcd",
            "systemctl restart pcscd.socket",
            "systemctl stop pcscd.service",
        ):
            done = machine.run(*command.split())
            assert done.status == 0, done
        self._attached = True
        self.slot.serve(self._dial)

    def close(self) -> None:
        """Takes it away for good, so that the next machine's is the only one."""
        self._attached = False
        self.slot.close()

    @property
    def key(self) -> str:
        """The card's public key, as ssh-add prints it."""
        return self.card.keys[Slot.AUTHENTICATION].ssh.split()[1]

    def _dial(self) -> socket.socket | None:
        while self._attached:
            with suppress(ConnectionRefusedError):
                return socket.create_connection(("127.0.0.1", PORT))
            time.sleep(0.1)
        return None


def _somebody_listens() -> bool:
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", PORT)):
        return True
    return False
