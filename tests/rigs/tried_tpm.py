"""A TPM: swtpm, shared by tpm2-abrmd on a message bus of its own, with tpm2-pkcs11."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from rigs.machine import Machine
from rigs.message_bus import CONFIGURATION
from rigs.terminal import eventually
from rigs.tried import TriedToken

_MAX_TRIES = 3
_PORT = 2321  # and the next one: what swtpm is controlled by
_TCTI = "tabrmd:bus_type=session"


class TriedTPM(TriedToken):
    """Its counter of wrong PINs is the TPM's own, whose lockout password clears it."""

    title = "TPM"
    packages = ("libtpm2-pkcs11-1", "tpm2-abrmd", "swtpm")
    module = next(Path("/usr/lib").glob("*-linux-gnu/pkcs11/libtpm2_pkcs11.so"))
    unlocking = "lockout"
    confuses_breaks = "it may ask once for the PIN: its module calls a broken connection a wrong PIN"

    def __init__(self) -> None:
        self.home = Machine()
        bus, state, store = (self.home.folder / name for name in ("bus", "tpm", "store"))
        state.mkdir()
        store.mkdir()
        configuration = self.home.write("bus.conf", CONFIGURATION.format(socket=bus))
        self._bus = ["dbus-daemon", f"--config-file={configuration}", "--nofork", "--nopidfile"]
        self._swtpm = [
            "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--server", f"type=tcp,port={_PORT}",
            "--ctrl", f"type=tcp,port={_PORT + 1}", "--flags", "not-need-init,startup-clear",
        ]  # fmt: skip
        tcti = f"--tcti=swtpm:host=127.0.0.1,port={_PORT}"
        self._abrmd = ["tpm2-abrmd", "--session", "--allow-root", "--flush-all", tcti]
        self.home.env |= {
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={bus}",
            "TPM2TOOLS_TCTI": _TCTI,
            "TPM2_PKCS11_TCTI": _TCTI,
            "TPM2_PKCS11_STORE": str(store),
            "TPM2_PKCS11_LOG_LEVEL": "0",
        }
        self.home.register("tpm2_pkcs11", f"module: {self.module}")
        self.bring_back()
        self.home.do(
            "tpm2_dictionarylockout", "--setup-parameters", f"--max-tries={_MAX_TRIES}",
            "--recovery-time=1000", "--lockout-recovery-time=1000",
        )  # fmt: skip
        self.home.do("tpm2_ptool", "init")
        self.home.do(
            "tpm2_ptool", "addtoken", "--pid=1", f"--label={self.label}", f"--userpin={self.pin}",
            "--sopin=12345678",
        )  # fmt: skip
        kinds = ("ecc256", "ecc384", "rsa2048")
        for kind in kinds:
            self.home.do(
                "tpm2_ptool", "addkey", f"--label={self.label}", f"--userpin={self.pin}",
                f"--algorithm={kind}", f"--key-label={kind}",
            )  # fmt: skip
        self.publics = self.read_publics(kinds)

    @property
    def wrong_pins(self) -> int:
        found = re.search(
            r"TPM2_PT_LOCKOUT_COUNTER: (0x[0-9A-F]+)", self.home.do("tpm2_getcap", "properties-variable")
        )
        assert found
        return int(found[1], 16)

    def take_away(self) -> None:
        # A TPM that loses its power without this counts one wrong PIN at its next start.
        self.home.do("tpm2_shutdown", "--clear")
        for daemon in reversed(self._daemons):
            daemon.stop()

    def interrupt(self) -> None:
        """Only the service: a TPM that loses power while it is used counts a wrong PIN by itself."""
        self._daemons.pop().stop()
        self._start_abrmd()

    def unlock(self) -> None:
        self.home.do("tpm2_dictionarylockout", "--clear-lockout")

    def bring_back(self) -> None:
        # In this order: tpm2-abrmd that starts before the others may hang.
        self._daemons = [self.home.start(*self._bus)]
        eventually(self._bus_accepts, "the bus accepts connections")
        self._daemons.append(self.home.start(*self._swtpm))
        eventually(lambda: self.home.listens(_PORT), "swtpm listens")
        self._start_abrmd()

    def _start_abrmd(self) -> None:
        self._daemons.append(self.home.start(*self._abrmd))
        eventually(self._answers, "tpm2-abrmd answers", within=30)

    def _bus_accepts(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.home.folder / "bus")) == 0

    def _answers(self) -> bool:
        assert all(daemon.running for daemon in self._daemons), [daemon.log for daemon in self._daemons]
        return self.home.run("tpm2_getcap", "properties-fixed").status == 0
