"""A slow card is not a hung module."""

from __future__ import annotations

from pathlib import Path

from rigs.agent import StartAgent
from rigs.askpass import Askpass
from rigs.home import Home
from rigs.pcscd import Pcscd
from rigs.piv_card import PIN, Card

LATENCY = 0.1
"""Seconds for every command: reading the card takes many times as long as the agent waits in silence."""
PATIENCE = 'operation_timeout = "2s"\ntouch_timeout = "2s"\n'


def test_a_slow_card_is_read_listed_and_signs_and_its_worker_is_not_replaced(
    start_agent: StartAgent,
    home: Home,
    pcscd: Pcscd,
    card: Card,
    module: Path,
    public: Path,
    askpass: Askpass,
) -> None:
    card.latency = LATENCY
    home.write(".config/replug/config.toml", f'modules = ["{module}"]\n{PATIENCE}')
    agent = start_agent()

    # The first listing waits while the card is being read.
    assert public.read_text().split()[1] in agent.ssh_add("-L").out, agent.log

    askpass.answers(PIN)
    assert agent.ssh_add("-T", public).status == 0, agent.log
    pcscd.slot.remove()
    pcscd.await_empty()
    pcscd.slot.insert(card)
    pcscd.await_present()
    assert agent.ssh_add("-T", public).status == 0, agent.log
    assert "no answer to" not in agent.log
    assert (card.wrong_pins, len(askpass.questions)) == (0, 1)
