"""A smart card reader of a new machine, and a card for it."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from rigs.booted import Booted
from rigs.piv_card import Card
from rigs.piv_keys import Slot
from rigs.piv_slot import CardSlot

_CONFIGURATION, _USUAL_PORT = "etc/reader.conf.d/vpcd", "0x8C7B"


class Reader:
    """The virtual reader of that machine's pcscd."""

    def __init__(self) -> None:
        self.slot = CardSlot()
        self.card = Card()
        self._port = 0

    def attach(self, machine: Booted) -> None:
        """Plugs it in."""
        done = machine.run("apt-get", "install", "--yes", "--quiet", "vsmartcard-vpcd")
        assert done.status == 0, done
        # The machine has the network of the one it runs on, where another reader may have the usual port.
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        configuration = machine.root / _CONFIGURATION
        usual = configuration.read_text()
        assert usual.count(_USUAL_PORT) == 2, usual
        configuration.write_text(usual.replace(_USUAL_PORT, f"{self._port:#x}"))
        for command in ("restart pcscd.socket", "stop pcscd.service"):
            done = machine.run("systemctl", *command.split())
            assert done.status == 0, done
        self.slot.serve(self._dial)

    def close(self) -> None:
        """Takes it away for good, so that the next machine's is the only one."""
        self._port = 0
        self.slot.close()

    @property
    def key(self) -> str:
        """The card's public key, as ssh-add prints it."""
        return self.card.keys[Slot.AUTHENTICATION].ssh.split()[1]

    def _dial(self) -> socket.socket | None:
        while self._port:
            with suppress(ConnectionRefusedError):
                return socket.create_connection(("127.0.0.1", self._port))
            time.sleep(0.1)
        return None
