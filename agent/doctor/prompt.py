"""Whether a person can be asked for a PIN where this program runs, as the agent would; nothing asks here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from replug.agent.doctor.finding import Finding, fail, ok, warn
from replug.agent.doctor.machine import Machine

_DEFAULT_ASKPASS = "/usr/bin/ssh-askpass"
_DIALOGS = (
    "pinentry",
    "pinentry-gnome3",
    "pinentry-qt6",
    "pinentry-qt",
    "pinentry-qt5",
    "pinentry-gtk-2",
    "pinentry-fltk",
)
_TEXTUAL = ("pinentry-curses", "pinentry-tty")


def check_prompt(machine: Machine) -> Iterator[Finding]:
    """A prompt for a PIN can appear to the person who works here."""
    ways = [way for way in (_on_display(machine), _terminal(machine), _password_agents(machine)) if way]
    named = machine.environment.get("SSH_ASKPASS")
    display = _display(machine)
    if named and not os.access(named, os.X_OK):
        yield fail(
            "prompt", f"SSH_ASKPASS names {named}, which cannot be run", "unset SSH_ASKPASS, or install it"
        )
    elif not ways:
        where = "no DISPLAY, no WAYLAND_DISPLAY" if not display else f"nothing that asks on display {display}"
        yield fail(
            "prompt",
            f"no way to ask for a PIN here: {where}, no terminal",
            "sudo apt-get install pinentry-gnome3"
            if display
            else "give the PIN beforehand, from a terminal: ssh-add -s MODULE",
        )
    elif display and not _on_display(machine):
        yield warn(
            "prompt",
            f"by {ways[0]} only: programs without a terminal cannot ask on display {display}",
            "sudo apt-get install pinentry-gnome3",
        )
    else:
        yield ok("prompt", f"by {ways[0]}")


def _display(machine: Machine) -> str:
    return machine.environment.get("WAYLAND_DISPLAY") or machine.environment.get("DISPLAY") or ""


def _on_display(machine: Machine) -> str:
    """The program that shows a dialog; empty without one. SSH_ASKPASS_REQUIRE means what it means to ssh."""
    require = machine.environment.get("SSH_ASKPASS_REQUIRE", "")
    display = _display(machine)
    if require == "never" or not (display or require == "force"):
        return ""
    askpass = machine.environment.get("SSH_ASKPASS") or _DEFAULT_ASKPASS
    dialogs = filter(None, map(machine.find_program, _DIALOGS))
    found = [program for program in dialogs if os.path.basename(os.path.realpath(program)) not in _TEXTUAL]
    with_windows = found if display else []
    programs = [askpass, *with_windows] if require in ("force", "prefer") else [*with_windows, askpass]
    program = next((program for program in programs if os.access(program, os.X_OK)), "")
    where = f" on display {display}" if display else ""
    return program and f"{program}{where}"


def _terminal(machine: Machine) -> str:
    """The controlling terminal, which a program started here would have too; empty without one."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return ""
    return "this terminal"


def _password_agents(machine: Machine) -> str:
    run = machine.environment.get("XDG_RUNTIME_DIR") or f"/run/user/{machine.user}"
    return "systemd's password agents" if Path(run, "systemd", "ask-password").is_dir() else ""
