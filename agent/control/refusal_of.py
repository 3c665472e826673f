"""Why the agent refused what a program asked for: the wire says no more than that it did."""

from __future__ import annotations

from replug.agent.control.client import AskError, ask
from replug.token.identity import printable


def why_refused(pid: int) -> str:
    """The last refusal of what the process asked for, in words; empty if there is none."""
    try:
        refusals = ask("status")["refusals"]
    except AskError:
        return ""
    its = [one for one in refusals if one["program"].endswith(f"(pid {pid})")]
    if not its:
        return ""
    reason, next_step = its[-1]["reason"], its[-1]["next_step"]
    return printable(f"the agent refused: {reason}" + (f"; {next_step}" if next_step else ""))
