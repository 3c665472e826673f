"""Fixtures for the real OpenSSH programs: a token, and an agent that has its keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rigs.agent import OPENSSH, Agent, StartAgent
from rigs.home import Home
from rigs.softhsm import KINDS, Token, copy_token


@pytest.fixture(scope="session")
def token_with_all_kinds() -> Iterator[Token]:
    """A token with a key of every kind, made once: only to be copied."""
    home = Home()
    token = Token(home)
    for kind in KINDS:
        token.add(kind)
    yield token
    home.remove()


@pytest.fixture
def token(home: Home, token_with_all_kinds: Token) -> Token:
    """A token called `work` with six keys, each labelled with its kind: rsa2048 ... ed25519."""
    return copy_token(token_with_all_kinds, home)


@pytest.fixture
def agents(start_agent: StartAgent) -> tuple[Agent, Agent]:
    """The agent under test and OpenSSH's own, side by side."""
    return start_agent(), start_agent(program=OPENSSH)


@pytest.fixture
def working_agent(agent: Agent, token: Token) -> Agent:
    """The agent under test, with the keys of `token` added and its PIN known."""
    done = agent.add_provider(token.module, token.pin)
    assert done.status == 0, (done, agent.log)
    return agent
