"""What gives a user access to smart cards whom polkit denies it, or pcscd where there is no polkit."""

from __future__ import annotations

import os
import pwd
import shlex

from replug.agent.doctor.finding import Finding, fail, missing
from replug.agent.doctor.machine import Machine
from replug.agent.setup.polkit_rule import polkit_rule
from replug.agent.setup.system_service import USER as SERVICE_USER

_SERVICE = "usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service"
"""By this file polkit is started when pcscd asks it."""
_ACTIONS = "usr/share/polkit-1/actions/org.debian.pcsc-lite.policy"
"""A pcscd that asks polkit brings this file."""


def is_missing(machine: Machine) -> bool:
    """Whether pcscd asks polkit, and polkit is not installed: it serves nobody then, or does not start."""
    return (machine.root / _ACTIONS).exists() and not (machine.root / _SERVICE).exists()


def missing_polkit(machine: Machine) -> Finding:
    """The finding that it is. To install it is enough for users at the machine itself; others need a rule."""
    found = missing(
        "pcscd", "pcscd serves nobody, because polkit, which it asks, is not installed", "polkitd"
    )
    if machine.environment.get("XDG_SEAT"):
        return found
    return fail(found.check, found.reason, f"{found.fix} && {permit_user_of(machine)}")


def permit_user_of(machine: Machine) -> str:
    """The command that writes a rule for polkit: the user whom the agent runs as may use cards."""
    if machine.is_system_service:
        return permit(SERVICE_USER)
    try:
        return permit(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        return permit(str(os.getuid()))


def permit(user: str) -> str:
    """The same for a user of this name."""
    file, rule = polkit_rule(user)
    # sudo adds to the user's umask, and polkit could not read what root writes with one of 077.
    return f"echo {shlex.quote(rule)} | sudo sh -c 'umask 022; cat >{file}'"
