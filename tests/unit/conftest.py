"""Fixtures that several unit tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.agent_bench import HOME_KEY, LOGIN_KEY, WORK_KEY, AgentBench, ControlRig
from doubles.stand_ins import PIN, Person, StandInToken
from doubles.token_bench import Bench, bench
from rigs.home import Home
from rigs.softhsm import KINDS, Token


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A token whose person is not to be asked."""
    return bench(monkeypatch)


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A token whose person types the right PIN whenever asked."""
    return bench(monkeypatch, person=Person(*[PIN] * 9))


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AgentBench:
    """An agent, and a token with one key that nobody has added yet."""
    return AgentBench(monkeypatch, tmp_path, StandInToken(LOGIN_KEY), person=Person(PIN))


@pytest.fixture
def work() -> StandInToken:
    return StandInToken(WORK_KEY)


@pytest.fixture
def home() -> StandInToken:
    return StandInToken(HOME_KEY, label="home", serial="2")


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, work: StandInToken) -> AgentBench:
    """An agent and one token."""
    return AgentBench(monkeypatch, tmp_path, work)


@pytest.fixture
def two(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, work: StandInToken, home: StandInToken
) -> AgentBench:
    """An agent and two tokens."""
    return AgentBench(monkeypatch, tmp_path, work, home)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> ControlRig:
    rig = ControlRig(AgentBench(monkeypatch, tmp_path, StandInToken(LOGIN_KEY)), tmp_path, capsys)
    monkeypatch.setenv("SSH_AUTH_SOCK", rig.socket)
    return rig


@pytest.fixture(scope="session")
def made_once() -> Iterator[Token]:
    """A token with a key of every kind; tests only look at it."""
    home = Home()
    token = Token(home)
    for kind in KINDS:
        token.add(kind)
    yield token
    home.remove()


@pytest.fixture
def all_kinds(made_once: Token, monkeypatch: pytest.MonkeyPatch) -> Token:
    """The token that was made once."""
    monkeypatch.setenv("SOFTHSM2_CONF", made_once.home.env["SOFTHSM2_CONF"])
    return made_once


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> Iterator[Token]:
    """An empty token of this test's own."""
    home = Home()
    monkeypatch.setenv("SOFTHSM2_CONF", home.env["SOFTHSM2_CONF"])
    yield Token(home)
    home.remove()
