"""A PIN that was typed for one token stays with it: other modules show others with its name and serial."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from rigs.agent import Agent, StartAgent
from rigs.askpass import Askpass
from rigs.faulty import Faulty
from rigs.home import Home
from rigs.softhsm import PIN

REPLUG = Path(sys.executable).with_name("replug")
CKR_OK = 0x0


@pytest.fixture
def own(home: Home, faulty_built: Path) -> Faulty:
    """The user's token."""
    return Faulty(home, faulty_built, "own")


@pytest.fixture
def stranger(home: Home, faulty_built: Path, own: Faulty) -> Faulty:
    """A token with the same label and serial, and another key, behind another module."""
    stranger = Faulty(home, faulty_built, "stranger", own.token)
    stranger.token.remove("faulty-p256")
    stranger.token.add("p256", "faulty-p256")
    return stranger


@pytest.fixture
def same(home: Home, faulty_built: Path, own: Faulty) -> Faulty:
    """The user's token, behind another module."""
    return Faulty(home, faulty_built, "same", own.token)


@pytest.fixture
def agent(start_agent: StartAgent, askpass: Askpass) -> Agent:
    """It may load any module, and ask."""
    return start_agent("-P", "*", env=askpass.env)


def add(agent: Agent, module: Faulty, pin: str | None = None) -> None:
    """`ssh-add -s`; without a PIN, return is pressed at its prompt."""
    done = agent.add_provider(module.module, pin or "")
    assert done.status == 0, (done, agent.log)


def remembered(agent: Agent) -> int:
    """For how many tokens `replug status` says that the PIN is known."""
    done = agent.run(REPLUG, "status", "--json")
    assert done.status == 0, done
    return done.out.count('"pin_remembered": true')


def test_a_copy_of_the_name_behind_another_module_does_not_get_the_pin(
    agent: Agent, own: Faulty, stranger: Faulty
) -> None:
    add(agent, own, PIN)
    add(agent, stranger)

    assert agent.ssh_add("-T", stranger.public).status == 1

    assert stranger.entered("C_Login") == 0
    assert agent.ssh_add("-T", own.public).status == 0, agent.log
    assert own.returns("C_Login") == [CKR_OK]


def test_what_the_stranger_is_told_is_its_own_affair(
    agent: Agent, own: Faulty, stranger: Faulty, askpass: Askpass
) -> None:
    """A wrong PIN, a right one and a removal at the stranger leave the user's PIN alone."""
    add(agent, own, PIN)
    add(agent, stranger)
    for answer, status in (("654321", 1), (PIN, 0)):
        askpass.answers(answer)
        assert agent.ssh_add("-T", stranger.public).status == status, agent.log
    askpass.answers(None)
    assert agent.ssh_add("-e", stranger.module).status == 0

    own.tell("C_Sign", "once crash")  # a fresh worker has to log in
    assert agent.ssh_add("-T", own.public).status == 0, agent.log
    assert own.returns("C_Login") == [CKR_OK, CKR_OK]


def test_a_pin_from_a_file_is_not_for_the_stranger(
    start_agent: StartAgent, home: Home, own: Faulty, stranger: Faulty
) -> None:
    pin = home.write("pin", PIN)
    home.configure(f'modules = []\n[[token]]\nuri = "pkcs11:token=faulty"\npin_source = "file:{pin}"')
    agent = start_agent("-P", "*")
    add(agent, own)
    add(agent, stranger)
    assert agent.ssh_add("-T", own.public).status == 0, agent.log

    assert agent.ssh_add("-T", stranger.public).status == 1

    assert stranger.entered("C_Login") == 0
    assert f"behind {own.module}" in agent.log


def test_the_same_keys_behind_two_modules_have_one_pin(
    agent: Agent, own: Faulty, same: Faulty, askpass: Askpass
) -> None:
    add(agent, own, PIN)
    add(agent, same)
    own.tell("out", "")  # so that the other one signs
    assert agent.ssh_add("-T", own.public).status == 0, agent.log
    assert same.returns("C_Login") == [CKR_OK]
    assert askpass.questions == []
    assert remembered(agent) == 2

    forgotten = agent.run(REPLUG, "forget")
    assert "1 PIN forgotten" in forgotten.out, forgotten
    assert remembered(agent) == 0


def test_twins_in_one_module_do_not_share_a_pin(agent: Agent, own: Faulty, stranger: Faulty) -> None:
    """Two slots, one name: when the first token is gone, the other one does not get its PIN."""
    [folder] = (stranger.home.folder / "tokens").iterdir()
    add(agent, own, PIN)
    assert agent.ssh_add("-T", own.public).status == 0, agent.log
    [taken_out] = (own.home.folder / "tokens").iterdir()
    taken_out.rename(own.home.folder / "taken-out")
    folder.rename(own.home.folder / "tokens" / folder.name)
    own.tell("C_Sign", "once crash")

    assert agent.ssh_add("-T", own.public).status == 1

    assert own.returns("C_Login") == [CKR_OK]
    assert "has other keys than before" in agent.log


def test_a_pin_that_was_rejected_is_not_tried_by_another_module(
    agent: Agent, own: Faulty, stranger: Faulty
) -> None:
    """They may be one token that shows other keys here and there; its PIN was changed elsewhere."""
    for one in (own, stranger):
        add(agent, one, PIN)
    assert remembered(agent) == 2
    for one in (own, stranger):
        one.tell("C_Login", "fail 0xa0")
    assert agent.run(REPLUG, "refresh").status == 0
    for one in (own, stranger):
        assert agent.ssh_add("-T", one.public).status != 0
    assert (own.returns("C_Login"), stranger.returns("C_Login")) == ([CKR_OK, 0xA0], [CKR_OK])
    assert remembered(agent) == 0
