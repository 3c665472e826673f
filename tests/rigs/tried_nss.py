"""NSS's soft token, Firefox's: p11-kit gives it the arguments that it needs; its keys have no labels."""

from __future__ import annotations

import os
from pathlib import Path

from rigs import spy
from rigs.machine import Machine
from rigs.spy import Spy
from rigs.tried import TriedToken

_KINDS = {"p256": ("-k", "ec", "-q", "nistp256"), "rsa2048": ("-k", "rsa", "-g", "2048")}
_LIBRARIES = next(Path("/usr/lib").glob("*-linux-gnu"))


class TriedNSS(TriedToken):
    """pkcs11-spy stands before it and counts."""

    title = "NSS softokn3"
    packages = ("libnss3", "p11-kit-modules")
    module = _LIBRARIES / "p11-kit-proxy.so"
    bare_module = _LIBRARIES / "libsoftokn3.so"
    label = "NSS Certificate DB"
    keys_made_elsewhere = "its registration says that it is only read"
    stays = "it keeps its database open"

    def __init__(self) -> None:
        self.home = Machine()
        database = self.home.folder / "nss"
        database.mkdir()
        pin = self.home.write("nss.pin", self.pin + "\n")
        noise = self.home.write("noise", os.urandom(64))
        at_database = ("-d", f"sql:{database}", "-f", pin)
        self.home.do("certutil", "-N", *at_database)
        for name, kind in _KINDS.items():
            self.home.do(
                "certutil", "-S", *at_database, "-z", noise, "-n", name, "-s", f"CN={name}", "-x", "-t", ",,",
                *kind,
            )  # fmt: skip
        self._spy = Spy(self.home, self.bare_module)
        self.home.env |= self._spy.env
        self.home.register(
            "nss",
            f"module: {spy.MODULE}",
            f"x-init-reserved: configDir='sql:{database}' certPrefix='' keyPrefix='' secmod='secmod.db'"
            " flags=readOnly",
        )
        self.publics = self.read_publics(tuple(_KINDS))
        self._database = database

    @property
    def wrong_pins(self) -> int:
        return self._spy.wrong_pins

    def take_away(self) -> None:
        self._database.rename(self._database.with_name("elsewhere"))

    def bring_back(self) -> None:
        self._database.with_name("elsewhere").rename(self._database)
