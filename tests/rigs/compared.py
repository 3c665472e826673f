"""Doing the same with the agent under test and with OpenSSH's own, and expecting the same of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from rigs.agent import Agent
from rigs.terminal import Done

Agents = tuple[Agent, Agent]
Heard = tuple[int, list[str], str]

NO_IDENTITIES: Heard = (1, ["The agent has no identities."], "")

Result = TypeVar("Result")


def heard(done: Done) -> Heard:
    """A program's exit status, its lines in a fixed order, and its complaints."""
    return done.status, done.lines, done.err


def compare(agents: Agents, session: Callable[[Agent], Sequence[Done]]) -> list[Heard]:
    """Runs the session with both agents; returns what both had to say, but for the order of lines."""
    ours, theirs = ([heard(done) for done in session(agent)] for agent in agents)
    assert ours == theirs, agents[0].log
    return ours


def compare_exactly(agents: Agents, session: Callable[[Agent], Result]) -> Result:
    """Runs the session with both agents; returns its result, which has to be the same."""
    ours, theirs = (session(agent) for agent in agents)
    assert ours == theirs, agents[0].log
    return ours
