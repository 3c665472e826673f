"""A token of another machine, by p11-kit's own protocol: `p11-kit server` there, p11-kit-client.so here."""

from __future__ import annotations

from pathlib import Path

from rigs import spy
from rigs.tried_server import TriedServer

CANNOT_SIGN = "ed25519"
"""Its protocol knows no CKM_EDDSA: this key is shown and never signs."""


class TriedRemote(TriedServer):
    """The server is p11-kit's."""

    title = "p11-kit remote"
    packages = ("p11-kit", "softhsm2")
    module = next(Path("/usr/lib").glob("*-linux-gnu/pkcs11/p11-kit-client.so"))
    found_again = "listed again after a moment: only a new process of its module sees that it is back"

    def __init__(self) -> None:
        super().__init__("p256", "rsa2048", CANNOT_SIGN)
        self.useless = self.publics.pop(CANNOT_SIGN)
        self.home.env["P11_KIT_SERVER_ADDRESS"] = f"unix:path={self.socket}"
        self.home.register("remote", f"module: {self.module}")
        self.bring_back()

    @property
    def server(self) -> tuple[str | Path, ...]:
        return (
            "p11-kit", "server", "--provider", spy.MODULE, "--foreground", "--name", self.socket,
            f"pkcs11:token={self.label}",
        )  # fmt: skip
