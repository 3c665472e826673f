"""A token behind a server of its own machine, which can be killed and started again."""

from __future__ import annotations

import socket
from abc import abstractmethod
from pathlib import Path

from rigs import softhsm
from rigs.machine import Machine
from rigs.softhsm import Token
from rigs.spy import Spy
from rigs.terminal import eventually
from rigs.tried import TriedToken


class TriedServer(TriedToken):
    """The server listens at `socket` and has SoftHSM, by way of pkcs11-spy, which counts there."""

    def __init__(self, *kinds: str) -> None:
        """The token gets a key of each of the `kinds`; the server is to be started with `bring_back`."""
        self.home = Machine()
        token = Token(self.home, self.label)
        self.publics: dict[str, Path] = {kind: token.add(kind) for kind in kinds}
        self._spy = Spy(self.home, softhsm.MODULE)
        self.socket = self.home.folder / "server.sock"

    @property
    @abstractmethod
    def server(self) -> tuple[str | Path, ...]:
        """The command that starts the server, in the foreground."""

    @property
    def wrong_pins(self) -> int:
        return self._spy.wrong_pins

    def take_away(self) -> None:
        self._server.stop()

    def bring_back(self) -> None:
        self.socket.unlink(missing_ok=True)
        self._server = self.home.start(*self.server, env=self._spy.env)
        eventually(self._listens, "the server listens")

    def _listens(self) -> bool:
        assert self._server.running, self._server.log
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.socket)) == 0
