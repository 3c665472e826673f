"""Whether the agent could ask for a PIN here, found out with the agent's own code and configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator

from replug.agent.doctor.finding import Finding, fail, ok, warn
from replug.agent.doctor.machine import Machine
from replug.token.errors import NobodyAskedError, clauses
from replug.token.prompts.askpass import AskpassPrompter
from replug.token.prompts.choice import ChoosingPrompter, Way
from replug.token.prompts.environment import environment_of
from replug.token.prompts.terminals import Terminals


def check_prompt(machine: Machine) -> Iterator[Finding]:
    """A prompt for a PIN can appear."""
    if machine.is_system_service:
        return  # its users are not asked: see check_guests
    config = machine.config
    chooser = ChoosingPrompter(
        machine.environment,
        config.prompt_timeout,
        way=config.prompt,
        pinentry_program=config.pinentry_program,
        environment_of=environment_of,
        terminals=Terminals(None),
    )
    ways = chooser.ways(os.getpid())
    failures = {way: failure for way in ways if (failure := _failure(way)) is not None}
    usable = [way for way in ways if way not in failures]
    reasons = clauses(*dict.fromkeys(failure.reason for failure in failures.values()))
    fix = next((failure.next_step for failure in failures.values() if failure.next_step), "")
    askpass = machine.environment.get("SSH_ASKPASS")
    display = machine.environment.get("WAYLAND_DISPLAY") or machine.environment.get("DISPLAY")
    if askpass and any(map(_is_askpass, ways)) and machine.find_program(askpass) is None:
        yield fail(
            "prompt", f"SSH_ASKPASS names {askpass}, which cannot be run", "unset SSH_ASKPASS, or install it"
        )
    elif not usable:
        yield fail(
            "prompt",
            f"no way to ask for a PIN here: {reasons}",
            fix or "give the PIN beforehand, from a terminal: ssh-add -s MODULE",
        )
    elif display and failures and all(way.terminal for way in usable):
        yield warn("prompt", f"by {usable[0]} only: not for programs without a terminal ({reasons})", fix)
    else:
        yield ok("prompt", f"by {usable[0]}")


def _is_askpass(way: Way) -> bool:
    return isinstance(way, AskpassPrompter)


def _failure(way: Way) -> NobodyAskedError | None:
    try:
        way.check()
    except NobodyAskedError as error:
        return error
    return None
