"""`replug doctor`: checks everything between ssh and the token, and suggests fixes."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from replug.agent.commands.command import Commands
from replug.agent.commands.terminal_style import Colour, Style
from replug.agent.doctor.finding import Finding, Outcome, fail
from replug.token.errors import clauses
from replug.token.identity import printable

if TYPE_CHECKING:
    from replug.agent.doctor.machine import Machine

DOCTOR_VERSION = 1
"""The version of the format of `--json`; increased by incompatible changes."""
_COLOURS: dict[Outcome, Colour] = {Outcome.OK: "green", Outcome.WARN: "yellow", Outcome.FAIL: "red"}


def add_parser(commands: Commands) -> None:
    """Add `doctor` to the commands of `replug`."""
    parser = commands.add_parser("doctor", help="check everything between ssh and the token; suggest fixes")
    parser.add_argument("module", nargs="*", help="a PKCS#11 module or URI to check as well")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Run all checks and print their findings; returns 1 if one of them failed."""
    from replug.agent.doctor.machine import Machine

    findings = []
    style = Style.of_output()
    for found in examine(Machine(os.environ, Path.home(), tuple(chosen.module), root=Path("/"))):
        findings.append(found)
        if not chosen.json:  # at once: some checks have to wait for a timeout
            print("\n".join(describe(found, style)), flush=True)
    if chosen.json:
        print(
            json.dumps(
                {"version": DOCTOR_VERSION, "findings": [_as_json(found) for found in findings]}, indent=2
            )
        )
    return int(any(found.outcome is Outcome.FAIL for found in findings))


def examine(machine: Machine) -> Iterator[Finding]:
    """The findings of all checks, from ssh to the card. A check that raises is a finding, too."""
    for check in _checks():
        try:
            yield from check(machine)
        except Exception as error:
            name = check.__name__.removeprefix("check_")
            yield fail(name, f"could not be checked: {error!r}", "please report this")


def _checks() -> Iterable[Callable[[Machine], Iterable[Finding]]]:
    from replug.agent.doctor import certificates, guests, modules, pcsc, prompt, ssh, tokens, upstreams, views

    return (
        ssh.check_unit,
        ssh.check_socket,
        ssh.check_release,
        ssh.check_memory,
        ssh.check_ssh_config,
        ssh.check_keys,
        modules.check_config,
        modules.check_modules,
        modules.check_opensc,
        pcsc.check_pcscd,
        pcsc.check_readers,
        pcsc.check_scdaemon,
        pcsc.check_udev,
        tokens.check_tokens,
        certificates.check_clock,
        certificates.check_rules,
        certificates.check_certificates,
        guests.check_guests,
        upstreams.check_upstreams,
        views.check_views,
        views.check_named,
        prompt.check_prompt,
    )


def describe(found: Finding, style: Style) -> Iterator[str]:
    """A finding on one line; for a terminal, wrapped and with the fix on a line of its own."""
    outcome = f"{found.outcome:<5}"
    reason, fix = printable(found.reason), printable(found.fix)
    if style.width is None:
        yield clauses(f"{outcome}{found.check}: {reason}", f"fix: {fix}" if fix else "")
        return
    lines = style.wrap(reason, first=f"{outcome}{found.check:<11}", rest=" " * 16)
    yield style.paint(lines[0][:5], _COLOURS[found.outcome], "bold") + lines[0][5:]
    yield from lines[1:]
    if fix:
        # Not wrapped: it is there to be copied.
        yield " " * 16 + style.paint(f"{style.arrow} {fix}", "bold")


def _as_json(found: Finding) -> dict[str, str]:
    return {"check": found.check, "outcome": found.outcome, "reason": found.reason, "fix": found.fix}
