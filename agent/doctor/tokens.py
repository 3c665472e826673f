"""The state of the running agent's tokens. Nothing here logs in or asks for a PIN."""

from __future__ import annotations

from collections.abc import Iterator

from replug.agent.doctor.finding import Finding, fail, ok, warn
from replug.agent.doctor.machine import Machine
from replug.token.identity import printable

_UNBLOCK = "unblock it with the PUK: pkcs15-tool --unblock-pin, or ykman piv access unblock-pin for a YubiKey"


def check_tokens(machine: Machine) -> Iterator[Finding]:
    """The tokens of the running agent have tries left and can be reached."""
    for token in (machine.status or {}).get("tokens", []):
        name = printable(f'"{token["label"]}" (serial {token["serial"]})')
        tries = token.get("pin_tries", "")
        if token["state"] == "locked" or tries == "locked":
            yield fail("token", f"{name}: the PIN is locked", _UNBLOCK)
        elif tries == "final":
            yield fail(
                "token",
                f"{name}: one PIN try is left; a wrong PIN locks the token",
                "enter the correct PIN once: ssh-add -T KEY.pub",
            )
        elif token["state"] == "unreachable":
            yield fail(
                "token", f"{name}: {printable(token['why'])}", "see the findings on pcscd, reader and card"
            )
        elif tries == "low":
            yield warn("token", f"{name}: a wrong PIN was entered since the last correct one")
        else:
            yield ok("token", f"{name} is {token['state']}")
