"""Fixtures for a card that comes and goes: a pcscd of the test's own, a card in it, and who uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from rigs.agent import Agent, StartAgent
from rigs.askpass import Askpass
from rigs.home import Home
from rigs.pcscd import OPENSC, YKCS11, Pcscd
from rigs.piv_card import PIN, Card
from rigs.piv_keys import Slot


@pytest.fixture
def pcscd(home: Home) -> Iterator[Pcscd]:
    """A running pcscd whose reader is empty; the home's programs use it."""
    with closing(Pcscd(home)) as pcscd:
        yield pcscd


@pytest.fixture
def card(pcscd: Pcscd) -> Card:
    """A card with keys in 9a (P-256), 9c (P-384) and 9e (RSA-2048), in the reader."""
    card = Card()
    pcscd.slot.insert(card)
    pcscd.await_present()
    return card


@pytest.fixture
def public(card: Card, home: Home) -> Path:
    """The .pub file of the key in slot 9a."""
    return card.keys[Slot.AUTHENTICATION].write_public(home, "9a")


@pytest.fixture
def always(card: Card, home: Home) -> Path:
    """The .pub file of the key in slot 9c."""
    return card.keys[Slot.SIGNATURE].write_public(home, "9c")


@pytest.fixture(params=[OPENSC, YKCS11], ids=["opensc", "ykcs11"])
def module(request: pytest.FixtureRequest) -> Path:
    """Each of the PKCS#11 modules for PIV cards."""
    path: Path = request.param
    assert path.exists(), f"{path} is missing: apt-get install opensc-pkcs11 ykcs11"
    return path


@pytest.fixture
def start_agent(pcscd: Pcscd, askpass: Askpass, start_agent: StartAgent) -> StartAgent:
    """Starts agents in `home` that use `pcscd` and `askpass`."""
    return partial(start_agent, env=askpass.env)


@pytest.fixture
def working_agent(agent: Agent, card: Card, module: Path) -> Agent:
    """The agent under test, with the keys of `card` added by way of `module`, and its PIN known."""
    done = agent.add_provider(module, PIN)
    assert done.status == 0, (done, agent.log)
    assert card.verifies == 1
    return agent
