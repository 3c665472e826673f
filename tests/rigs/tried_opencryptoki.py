"""openCryptoki's soft token: a daemon, pkcsslotd, and files and shared memory at fixed places."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from rigs.machine import Machine
from rigs.terminal import eventually
from rigs.tried import TriedToken

_STATE = Path("/var/lib/opencryptoki")
_CONFIGURATION = Path("/etc/opencryptoki/opencryptoki.conf")
_ONE_SLOT = "version opencryptoki-3.1\n\nslot 3\n{\nstdll = libpkcs11_sw.so\n}\n"
_FIRST_SO_PIN, _SO_PIN, _FIRST_PIN = "87654321", "12121212", "999999"


class TriedOpenCryptoki(TriedToken):
    """It counts wrong PINs by its flags only; Debian's build makes RSA keys only."""

    title = "openCryptoki"
    packages = ("opencryptoki",)
    module = next(Path("/usr/lib").glob("*-linux-gnu/pkcs11/libopencryptoki.so"))
    unlocking = "security officer"
    stays = "a module that is loaded goes on without its daemon"

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="rp-ock-"))
        configuration = self._folder / "opencryptoki.conf"
        configuration.write_text(_ONE_SLOT)
        state = shutil.copytree(_STATE, self._folder / "state")
        self.home = Machine(
            {_STATE: state, _CONFIGURATION: configuration, Path("/dev/shm"): None, Path("/run/lock"): None}
        )
        self.home.do("install", "-d", "-g", "pkcs11", "-m", "0770", "/run/lock/opencryptoki/swtok")
        self.home.register("opencryptoki", f"module: {self.module}")
        self.bring_back()
        self._set_up("-I", "-S", _FIRST_SO_PIN, text=f"{self.label}\n")
        self._set_up("-P", "-S", _FIRST_SO_PIN, "-n", _SO_PIN)
        self.unlock()
        self.home.do(
            "pkcs11-tool", "--module", self.module, "--login", "--pin", self.pin, "--keypairgen",
            "--key-type", "rsa:2048", "--label", "rsa2048", "--id", "01", "--usage-sign",
        )  # fmt: skip
        self.publics = self.read_publics(("rsa2048",))

    @property
    def wrong_pins(self) -> int:
        """Since the last right one."""
        flags = self.home.do("pkcsconf", "-t")
        names = ("USER_PIN_COUNT_LOW", "USER_PIN_FINAL_TRY", "USER_PIN_LOCKED")
        return sum(number for number, name in enumerate(names, 1) if re.search(rf"\b{name}\b", flags))

    def take_away(self) -> None:
        self._daemon.stop()

    def bring_back(self) -> None:
        self._daemon = self.home.start("pkcsslotd", "-f")
        eventually(lambda: self.home.run("pkcsconf", "-t").status == 0, "pkcsslotd answers")

    def unlock(self) -> None:
        self._set_up("-u", "-S", _SO_PIN, "-n", _FIRST_PIN)
        self._set_up("-p", "-U", _FIRST_PIN, "-n", self.pin)

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._folder)

    def _set_up(self, *options: str, text: str = "") -> None:
        self.home.do("pkcsconf", "-c", "3", *options, text=text)
