"""The state of the running agent's tokens. Nothing here logs in or asks for a PIN."""

from __future__ import annotations

from collections.abc import Iterator

from replug.agent.doctor.finding import Finding, fail, ok, warn
from replug.agent.doctor.machine import Machine
from replug.token.identity import TokenId, printable
from replug.token.pins.unlocking import how_to_unlock


def check_tokens(machine: Machine) -> Iterator[Finding]:
    """The tokens of the running agent have tries left and can be reached."""
    for token in (machine.status or {}).get("tokens", []):
        name = printable(f'"{token["label"]}" (serial {token["serial"]})')
        tries = token.get("pin_tries", "")
        if token["state"] == "locked" or tries == "locked":
            identity = TokenId(*(token[field] for field in ("manufacturer", "model", "serial", "label")))
            unlock = printable(how_to_unlock(token["module"], identity))
            yield fail("token", f"{name}: the PIN is locked", unlock)
        elif tries == "final":
            yield fail(
                "token",
                f"{name}: one PIN try is left; a wrong PIN locks the token",
                "enter the correct PIN once: ssh-add -T KEY.pub",
            )
        elif token["state"] == "unreachable":
            yield fail(
                "token",
                f"{name}: {printable(token['why'])}",
                printable(f"check the service behind {token['module']}, if it has one; ")
                + "for a smart card, see the findings on pcscd, reader and card",
            )
        elif tries == "low":
            yield warn("token", f"{name}: a wrong PIN was entered since the last correct one")
        elif token.get("without_keys"):
            fix = "; ".join(filter(None, (token["first_key"], token.get("first_key_then"))))
            yield warn("token", f"{name}: {token['without_keys']}", printable(fix))
        else:
            yield ok("token", f"{name} is {token['state']}")
