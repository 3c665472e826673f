"""Checks of the other agents that the configuration puts behind this one."""

from __future__ import annotations

from collections.abc import Iterator

from replug.agent.doctor.finding import Finding, ok, warn
from replug.agent.doctor.machine import Machine


def check_upstreams(machine: Machine) -> Iterator[Finding]:
    """Whether each answers the agent that runs."""
    status = machine.status or {}
    asked = {one["socket"]: one for one in status.get("upstreams", ())}
    for path in machine.config.upstreams:
        state = asked.pop(path, None)
        if state is None:
            if status:
                yield warn(
                    "upstreams", f"the agent that runs does not ask the one at {path}", "replug reload"
                )
        elif state["why"]:
            yield warn("upstreams", state["why"], state["next_step"])
        elif state["lists_nothing"]:
            yield warn("upstreams", f"the agent at {path} does not list its keys", "unlock it")
        elif state["answers"]:
            keys = state["keys"]
            yield ok("upstreams", f"the agent at {path} answers, and lists {keys} key{'s' * (keys != 1)}")
