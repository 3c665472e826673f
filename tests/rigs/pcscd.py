"""A pcscd of a test's own, with a reader whose two slots take virtual cards.

It runs in a mount and a network namespace of its own: this machine's pcscd and tokens are neither seen nor
touched, and any number of tests can run side by side.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from rigs.home import Home
from rigs.piv_card import OTHER_APPLICATION, PIV, Instruction
from rigs.piv_slot import CardSlot
from rigs.terminal import eventually

_LIBRARIES = next(Path("/usr/lib").glob("*-linux-gnu"))
OPENSC = _LIBRARIES / "opensc-pkcs11.so"
YKCS11 = _LIBRARIES / "libykcs11.so"
READER = "Yubico YubiKey"
"""libykcs11 takes only readers whose names begin with Yubico."""

_NOT_STARTED = (
    "pcscd in namespaces of its own needs root, or user namespaces that everybody may make"
    " (sysctl kernel.apparmor_restrict_unprivileged_userns=0 kernel.unprivileged_userns_clone=1)"
)
_INSIDE = Path(__file__).with_name("pcscd_inside.py")
_CLIENT = Path(__file__).with_name("pcsc_client.py")


class NotStartedError(Exception):
    """There can be no pcscd of our own here; the text says what is missing."""


class Pcscd:
    """A running pcscd for the programs of a home; `slot` and `slot2` are its reader's slots."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folder = home.folder / "pcscd"
        self._folder.mkdir()
        self.socket = self._folder / "pcscd.comm"
        home.env["PCSCLITE_CSOCK_NAME"] = str(self.socket)
        self.slot = CardSlot()
        self.slot2 = CardSlot()
        self._process: subprocess.Popen[bytes] | None = None
        self._inside: socket.socket | None = None
        self._dialling = threading.Lock()
        self.start()

    def start(self) -> None:
        """Starts pcscd, and returns when it listens; NotStartedError."""
        assert self._process is None, "pcscd runs already"
        self._inside, theirs = socket.socketpair()
        with theirs, (self._home.folder / "pcscd.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--",
                 sys.executable, "-I", _INSIDE, str(theirs.fileno()), self._folder, READER],
                pass_fds=[theirs.fileno()], env=self._home.env,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        eventually(self._listens, "pcscd listens")
        for number, slot in enumerate((self.slot, self.slot2)):
            slot.serve(partial(self._dial, self._inside, number))

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends pcscd by a signal; cards stay in their slots."""
        assert self._process is not None, "pcscd does not run"
        assert self._inside is not None
        self._process.send_signal(how)
        self._process.wait(timeout=20)
        self._process = None
        for slot in (self.slot, self.slot2):
            slot.close()
        with self._dialling:
            self._inside.close()

    def restart(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stops and starts it."""
        self.stop(how)
        self.start()

    def close(self) -> None:
        """Ends it for good."""
        if self._process is not None:
            self.stop(signal.SIGKILL)

    @property
    def log(self) -> str:
        """What pcscd has written."""
        return (self._home.folder / "pcscd.log").read_text()

    def await_present(self) -> None:
        """Waits until pcscd knows of the card in `slot`, not of one before it."""
        self.slot.await_power()
        self._client("await", "present")

    def await_empty(self) -> None:
        """Waits until pcscd knows that `slot` is empty."""
        self._client("await", "empty")

    # What another program may do to the card in `slot`.

    def reset_card(self) -> None:
        """Another program ends its use of the card with a reset."""
        self._client("reset")

    def select_other_application(self) -> None:
        """Another program selects another of the card's applications, and leaves it selected."""
        self.transmit(select(OTHER_APPLICATION))

    def send_pin(self, pin: str) -> str:
        """Another program sends a PIN; the card's status word."""
        return self.transmit(select(PIV), verify(pin))[-1][-2:].hex()

    @contextmanager
    def held_by_another(self, how: str = "hold") -> Iterator[int]:
        """Another program has the card for itself; its process id.

        With "transact" it has begun a transaction: other programs may connect, and wait.
        """
        with subprocess.Popen(
            [sys.executable, "-I", _CLIENT, f"{READER} 00 00", how],
            env=self._home.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as holder:  # fmt: skip
            assert holder.stdout
            assert holder.stdout.readline() == "held\n", self.log
            yield holder.pid

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """pcscd does not answer, and does not end either."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def transmit(self, *apdus: bytes) -> list[bytes]:
        """Another program sends these commands, in one transaction; the card's answers."""
        return [bytes.fromhex(answer) for answer in self._client("transmit", *[apdu.hex() for apdu in apdus])]

    def _client(self, *arguments: str) -> list[str]:
        done = self._home.run(sys.executable, "-I", _CLIENT, f"{READER} 00 00", *arguments)
        assert done.status == 0, (done, self.log)
        return done.out.split()

    def _dial(self, inside: socket.socket, number: int) -> socket.socket | None:
        """A connection to vpcd's slot with this number."""
        with self._dialling:
            try:
                inside.send(bytes([number]))
                _, descriptors, _, _ = socket.recv_fds(inside, 1, 1)
            except OSError:  # pcscd has been stopped
                return None
        if not descriptors:
            return None
        # A program that had it too would keep the card in the slot.
        os.set_inheritable(descriptors[0], False)
        return socket.socket(fileno=descriptors[0])

    def _listens(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise NotStartedError(f"{_NOT_STARTED}; here: {self.log}")
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.socket)) == 0


@contextmanager
def home_with_pcscd() -> Iterator[tuple[Home, Pcscd]]:
    """A home whose programs use a pcscd of their own; at the end both are gone."""
    home = Home()
    try:
        with closing(Pcscd(home)) as pcscd:
            yield home, pcscd
    finally:
        home.remove()


def select(application: bytes) -> bytes:
    """The command that selects an application."""
    return bytes([0, Instruction.SELECT, 4, 0, len(application)]) + application


def verify(pin: str) -> bytes:
    """The command that sends a PIN."""
    return bytes([0, Instruction.VERIFY, 0, 0x80, 8]) + pin.encode().ljust(8, b"\xff")
