"""How the tokens stand, and whether a person can be asked for a PIN. Nothing here logs in or asks for one."""

from __future__ import annotations

import os
from collections.abc import Iterator

from replug.agent.doctor_finding import Finding, fail, ok, warn
from replug.agent.doctor_machine import Machine
from replug.token.identity import printable

_UNBLOCK = "unblock it with the PUK: pkcs15-tool --unblock-pin, or ykman piv access unblock-pin for a YubiKey"
_DEFAULT_ASKPASS = "/usr/bin/ssh-askpass"
_GRAPHICAL = (
    "pinentry-gnome3",
    "pinentry-gtk",
    "pinentry-gtk-2",
    "pinentry-qt",
    "pinentry-qt5",
    "pinentry-x11",
)
_ON_TERMINAL = ("pinentry-curses", "pinentry-tty")


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
                f"{name}: one try is left; a wrong PIN locks the token",
                "enter the right PIN once: ssh-add -T KEY.pub",
            )
        elif token["state"] == "unreachable":
            yield fail("token", f"{name}: {printable(token['why'])}", "see pcscd, reader and card here")
        elif tries == "low":
            yield warn("token", f"{name}: a wrong PIN was entered since the last right one")
        else:
            yield ok("token", f"{name} is {token['state']}")


def check_prompt(machine: Machine) -> Iterator[Finding]:
    """A prompt for a PIN can appear here."""
    environment = machine.environment
    display = environment.get("WAYLAND_DISPLAY") or environment.get("DISPLAY")
    terminal = _terminal(machine)
    askpass = environment.get("SSH_ASKPASS") or _DEFAULT_ASKPASS
    runs = os.access(askpass, os.X_OK)
    require = environment.get("SSH_ASKPASS_REQUIRE", "")
    if environment.get("SSH_ASKPASS") and not runs:
        yield fail(
            "prompt", f"SSH_ASKPASS names {askpass}, which cannot be run", "sudo apt-get install ssh-askpass"
        )
    elif require == "force" and runs:
        yield ok("prompt", f"{askpass}, as SSH_ASKPASS_REQUIRE is force")
    elif display and require != "never" and runs:
        yield ok("prompt", f"{askpass} on display {display}")
    elif display and (program := _first(machine, _GRAPHICAL)):
        yield ok("prompt", f"{program} on display {display}")
    elif terminal and (program := _first(machine, _ON_TERMINAL)):
        yield ok("prompt", f"{program} on {terminal}")
    elif terminal:
        yield warn(
            "prompt",
            f"only the terminal {terminal}: programs without one cannot be asked for a PIN",
            "sudo apt-get install " + ("pinentry-gnome3" if display else "pinentry-curses"),
        )
    elif display:
        yield fail(
            "prompt", f"nothing asks for a PIN on display {display}", "sudo apt-get install pinentry-gnome3"
        )
    else:
        yield fail(
            "prompt",
            "no way to ask for a PIN here: no DISPLAY, no WAYLAND_DISPLAY, no terminal",
            "give the PIN beforehand, from a terminal: ssh-add -s MODULE",
        )


def _first(machine: Machine, names: tuple[str, ...]) -> str | None:
    return next((path for path in map(machine.find_program, names) if path), None)


def _terminal(machine: Machine) -> str:
    """The controlling terminal's name, which ssh would be asked on; empty without one."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return ""
    named = machine.environment.get("GPG_TTY") or machine.environment.get("SSH_TTY")
    return named or "/dev/tty"
