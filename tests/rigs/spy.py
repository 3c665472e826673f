"""pkcs11-spy of OpenSC: a module that writes down each call, with its result, and passes it on to another."""

from __future__ import annotations

import re
from pathlib import Path

from rigs.home import Home

MODULE = next(Path("/usr/lib").glob("*-linux-gnu/pkcs11-spy.so"))
_CALL = re.compile(r"^\d+: (C_\w+)\n(.*?)^Returned: +\d+ (CKR_\w+)", re.MULTILINE | re.DOTALL)


class Spy:
    """The calls that were made of `module` by way of pkcs11-spy with the environment `env`."""

    def __init__(self, home: Home, module: Path) -> None:
        self._output = home.folder / "spy.log"
        self.env = {"PKCS11SPY": str(module), "PKCS11SPY_OUTPUT": str(self._output)}

    def calls(self, function: str) -> list[str]:
        """The results of all calls of this function so far; several processes may have made them."""
        if not self._output.exists():
            return []
        text = self._output.read_text(errors="replace")
        return [result for name, _, result in _CALL.findall(text) if name == function]

    @property
    def wrong_pins(self) -> int:
        """How many wrong PINs have reached the module."""
        return self.calls("C_Login").count("CKR_PIN_INCORRECT")
