"""What the rules for certificates need: a clock like the servers', and CA keys that are there."""

from __future__ import annotations

from collections.abc import Iterator

from replug.agent.doctor.finding import Finding, ok, warn
from replug.agent.doctor.machine import Machine
from replug.token.identity import printable

_NOT_SYNCHRONISED = 5
"""What adjtimex(2) returns then (TIME_ERROR)."""


def check_clock(machine: Machine) -> Iterator[Finding]:
    """The clock is synchronised, as certificates begin and end by it."""
    if not machine.config.certificate_rules:
        return
    state = machine.clock_state
    if state == _NOT_SYNCHRONISED:
        yield warn(
            "clock",
            "not synchronised with a time server: if it is wrong, servers refuse certificates as not yet "
            "valid, or as expired",
            "sudo timedatectl set-ntp true; timedatectl shows the state",
        )
    elif state is not None:
        yield ok("clock", "synchronised")


def check_rules(machine: Machine) -> Iterator[Finding]:
    """A CA key that signs for logins has a `[[ca]]`, which limits what it signs for ssh-keygen."""
    config = machine.config
    ruled = {entry.key for entry in config.cas}
    for key in dict.fromkeys(key for rule in config.certificate_rules for key in rule.ca):
        if key not in ruled:
            yield warn(
                "ca-rule",
                f"no [[ca]] names the CA key {key}: ssh-keygen has it sign any certificate, of any length",
                "write a [[ca]] for it into config.toml: see replug.toml(5)",
            )


def check_certificates(machine: Machine) -> Iterator[Finding]:
    """Each rule has a CA key that the running agent serves, and its last certificate could be made."""
    status = machine.status or {}
    keys = [key for token in status.get("tokens", []) for key in token["keys"]]
    keys += [*status.get("software_keys", []), *status.get("security_keys", [])]
    there = {key["fingerprint"] for key in keys}
    for rule in status.get("certificates", []):
        hosts = printable(", ".join(rule["hosts"]))
        if rule["failed"] and not rule["serial"]:
            yield warn("certificate", f"none for {hosts}: {printable(rule['failed'])}", rule["next_step"])
        elif not there & set(rule["ca"]):
            yield warn(
                "certificate",
                f"none can be made for {hosts}: no known token has the CA key {' or '.join(rule['ca'])}",
                "plug its token in; ca in config.toml has the fingerprint that ssh-add -l shows",
            )
        else:
            yield ok("certificate", f"the CA key for {hosts} is there")
