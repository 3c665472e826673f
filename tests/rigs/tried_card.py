"""The virtual PIV card in pcscd, with each of the modules for such cards."""

from __future__ import annotations

from rigs.machine import Machine
from rigs.pcscd import OPENSC, YKCS11, Pcscd
from rigs.piv_card import TRIES, Card
from rigs.tried import TriedToken


class TriedOpenSC(TriedToken):
    """With OpenSC."""

    title = "PIV card, OpenSC"
    packages = ("opensc-pkcs11", "pcscd")
    module = OPENSC
    label = "card 5001234 slot 9a"
    unlocking = "PUK"
    plugged = True
    keys_made_elsewhere = "its keys are made with ykman, as `replug keygen` says"

    def __init__(self) -> None:
        self.home = Machine()
        self._pcscd = Pcscd(self.home)
        self._card = Card()
        self.bring_back()
        self.publics = {
            f"{slot:x}": key.write_public(self.home, f"{slot:x}") for slot, key in self._card.keys.items()
        }
        self.home.register("card", f"module: {self.module}")

    @property
    def wrong_pins(self) -> int:
        return self._card.wrong_pins

    def take_away(self) -> None:
        self._pcscd.slot.remove()
        self._pcscd.await_empty()

    def bring_back(self) -> None:
        self._pcscd.slot.insert(self._card)
        self._pcscd.await_present()

    def unlock(self) -> None:
        self._card.tries_left = TRIES

    def close(self) -> None:
        self._pcscd.close()
        super().close()


class TriedYkcs11(TriedOpenSC):
    """With Yubico's."""

    title = "PIV card, libykcs11"
    packages = ("ykcs11", "pcscd")
    module = YKCS11
    label = "YubiKey PIV #5001234"
