"""SoftHSM, alone and with pkcs11-spy before it."""

from __future__ import annotations

from pathlib import Path

from rigs import softhsm, spy
from rigs.machine import Machine
from rigs.softhsm import Token
from rigs.spy import Spy
from rigs.tried import TriedToken

KINDS = ("p256", "rsa2048", "ed25519")


class TriedSoftHSM(TriedToken):
    """It is taken away with the disk that it is on."""

    title = "SoftHSM"
    packages = ("softhsm2",)
    module = softhsm.MODULE
    found_again = "listed again after a moment: only a new process of its module sees that it is back"

    def __init__(self) -> None:
        self.home = Machine()
        token = Token(self.home, self.label)
        self.publics = {kind: token.add(kind) for kind in KINDS}
        self.home.register("softhsm", f"module: {self.module}")

    @property
    def wrong_pins(self) -> int:
        """SoftHSM keeps no count, only whether there was one since the last right one."""
        slots = self.home.do("pkcs11-tool", "--module", self.module, "--list-slots")
        return slots.count("user PIN count low")

    def take_away(self) -> None:
        self._tokens.rename(self._elsewhere)
        self._tokens.mkdir()

    def bring_back(self) -> None:
        self._tokens.rmdir()
        self._elsewhere.rename(self._tokens)

    @property
    def _tokens(self) -> Path:
        return self.home.folder / "tokens"

    @property
    def _elsewhere(self) -> Path:
        return self.home.folder / "tokens.elsewhere"


class TriedSpy(TriedSoftHSM):
    """pkcs11-spy counts the calls."""

    title = "pkcs11-spy before SoftHSM"
    packages = ("opensc-pkcs11", "softhsm2")
    module = spy.MODULE

    def __init__(self) -> None:
        super().__init__()
        self.spy = Spy(self.home, softhsm.MODULE)
        self.home.env |= self.spy.env

    @property
    def wrong_pins(self) -> int:
        return self.spy.wrong_pins
