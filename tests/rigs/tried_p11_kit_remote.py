"""A token of another machine, by p11-kit's own protocol: `p11-kit server` there, p11-kit-client.so here."""

from __future__ import annotations

from pathlib import Path

from rigs import softhsm, spy
from rigs.machine import Machine
from rigs.softhsm import Token
from rigs.spy import Spy
from rigs.terminal import eventually
from rigs.tried import TriedToken

CANNOT_SIGN = "ed25519"
"""Its protocol knows no CKM_EDDSA: this key is shown and never signs."""


class TriedRemote(TriedToken):
    """The server has SoftHSM, by way of pkcs11-spy, which counts there."""

    title = "p11-kit remote"
    packages = ("p11-kit", "softhsm2")
    module = next(Path("/usr/lib").glob("*-linux-gnu/pkcs11/p11-kit-client.so"))
    found_again = "listed again after a moment: only a new process of its module sees that it is back"

    def __init__(self) -> None:
        self.home = Machine()
        token = Token(self.home, self.label)
        publics = {kind: token.add(kind) for kind in ("p256", "rsa2048", CANNOT_SIGN)}
        self.useless = publics.pop(CANNOT_SIGN)
        self.publics = publics
        self._spy = Spy(self.home, softhsm.MODULE)
        self._socket = self.home.folder / "p11.sock"
        self.home.env["P11_KIT_SERVER_ADDRESS"] = f"unix:path={self._socket}"
        self.home.register("remote", f"module: {self.module}")
        self.bring_back()

    @property
    def wrong_pins(self) -> int:
        return self._spy.wrong_pins

    def take_away(self) -> None:
        self._server.stop()

    def bring_back(self) -> None:
        self._socket.unlink(missing_ok=True)
        self._server = self.home.start(
            "p11-kit", "server", "--provider", spy.MODULE, "--foreground", "--name", self._socket,
            f"pkcs11:token={self.label}", env=self._spy.env,
        )  # fmt: skip
        eventually(self._socket.exists, "p11-kit server listens")
