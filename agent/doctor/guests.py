"""What the users of a service (`replug setup --ca`) need: to exist, to be told apart, a PIN that is known."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterator
from typing import Any

from replug.agent.config.certificate_rule import GROUP
from replug.agent.doctor.finding import Finding, fail, ok, warn
from replug.agent.doctor.machine import Machine
from replug.token.identity import printable


def check_guests(machine: Machine) -> Iterator[Finding]:
    """Other users whom a rule names can have certificates."""
    rules, status = machine.config.guest_rules, machine.status
    if not rules:
        return
    found = [*_strangers(machine), *(_in_the_way(machine, status) if status is not None else ())]
    yield from found
    if not found and status is not None:
        whom = ", ".join(dict.fromkeys(user for rule in rules for user in rule.users))
        yield ok("guests", f"certificates can be made for {printable(whom)}")


def _strangers(machine: Machine) -> Iterator[Finding]:
    for user in dict.fromkeys(user for rule in machine.config.guest_rules for user in rule.users):
        name = user.removeprefix(GROUP)
        try:
            grp.getgrnam(name) if user != name else pwd.getpwnam(name)
        except KeyError:
            kind = "group" if user != name else "user"
            yield warn("guests", f"there is no {kind} {printable(name)}", "correct users in config.toml")


def _in_the_way(machine: Machine, status: dict[str, Any]) -> Iterator[Finding]:
    why = status.get("no_guests")
    if why:
        yield fail("guests", f"other users are refused: {why}", str(status.get("no_guests_next_step", "")))
    wanted = {key for rule in machine.config.guest_rules for key in rule.ca}
    for token in status.get("tokens", []):
        needs_pin = not token["pin_remembered"] and not token["pin_configured"]
        if needs_pin and any(key["fingerprint"] in wanted for key in token["keys"]):
            yield warn(
                "guests",
                f'token "{printable(token["label"])}": nobody has given its PIN since the agent started, and'
                " its users are not asked for it",
                "sudo replug unlock, or a credential: pin_source in config.toml",
            )
