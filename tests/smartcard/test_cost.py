"""What adding a card costs it, in commands: each takes 15 ms on a real one."""

from __future__ import annotations

from pathlib import Path

from rigs.agent import Agent
from rigs.home import Home
from rigs.piv_card import PIN, Card


def test_adding_costs_little_more_than_ssh_keygen(agent: Agent, card: Card, module: Path, home: Home) -> None:
    """A login and a moment in which the agent may have been held up, beside `ssh-keygen -D`."""
    begin = card.commands
    assert home.run("ssh-keygen", "-D", module).status == 0
    listing = card.commands - begin

    begin = card.commands
    assert agent.add_provider(module, PIN).status == 0, agent.log

    assert card.commands - begin <= 1.1 * listing + 2
