"""Locking and unlocking in every order, right and wrong, side by side with OpenSSH's agent."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from rigs.agent import FAILURE, LIST_REQUEST, Agent, Connection, frame, sign_request, string
from rigs.compared import Agents, compare_exactly
from rigs.home import Home
from rigs.key_files import blob_of, make_key, public_of
from rigs.softhsm import Token

SUCCESS = b"\x06"
LOCK, UNLOCK = b"\x16", b"\x17"
RECORDED = Path(__file__).parent.parent / "messages" / "requests"


def locking(passphrase: bytes) -> bytes:
    return frame(LOCK + string(passphrase))


def unlocking(passphrase: bytes) -> bytes:
    return frame(UNLOCK + string(passphrase))


STATES = {"unlocked": b"", "locked with a": locking(b"a"), "locked with b": locking(b"b")}
STEPS = [operation(passphrase) for operation in (locking, unlocking) for passphrase in (b"a", b"b", b"")]


@pytest.fixture
def key(home: Home, agents: Agents) -> Path:
    """A key that both agents hold."""
    key = make_key(home, "key")
    for agent in agents:
        assert agent.ssh_add(key).status == 0, agent.log
    return key


@pytest.mark.parametrize("state", STATES)
def test_each_step_in_each_state(state: str, agents: Agents, key: Path) -> None:
    def session(agent: Agent) -> list[tuple[bytes, int]]:
        with agent.connect() as connection:
            return [after(connection, step) for step in STEPS]

    def after(connection: Connection, step: bytes) -> tuple[bytes, int]:
        """The reply to the step, and how many keys are listed after it."""
        if STATES[state]:
            assert connection.ask(STATES[state]) == SUCCESS
        reply = connection.ask(step)
        listed = connection.ask(LIST_REQUEST)
        if listed[4] == 0:
            locked_with = b"a" if (STATES[state] or step) == locking(b"a") else b"b"
            assert connection.ask(unlocking(locked_with)) == SUCCESS
        return reply, listed[4]

    said = compare_exactly(agents, session)

    right = {
        "unlocked": [(SUCCESS, 0), (SUCCESS, 0), (FAILURE, 1), *[(FAILURE, 1)] * 3],
        "locked with a": [*[(FAILURE, 0)] * 3, (SUCCESS, 1), *[(FAILURE, 0)] * 2],
        "locked with b": [*[(FAILURE, 0)] * 3, (FAILURE, 0), (SUCCESS, 1), (FAILURE, 0)],
    }
    assert said == right[state]


def test_while_locked_everything_else_is_refused(agents: Agents, key: Path) -> None:
    """Every recorded request; but for session-bind, which OpenSSH takes in later releases than 9.2."""
    requests = {path.stem: path.read_bytes() for path in sorted(RECORDED.glob("*.bin"))}
    blob = blob_of(public_of(key))
    requests |= {"sign with its key": sign_request(blob)[4:], "remove its key": b"\x12" + string(blob)}
    binds = {name: request for name, request in requests.items() if "session-bind" in name}

    def session(agent: Agent) -> dict[str, bytes]:
        replies = {}
        with agent.connect() as connection:
            assert connection.ask(locking(b"sesame")) == SUCCESS
        for name in requests.keys() - binds.keys():
            with agent.connect() as connection:
                replies[name] = connection.ask(frame(requests[name]))
        with agent.connect() as connection:
            assert connection.ask(unlocking(b"sesame")) == SUCCESS
            replies["the key afterwards"] = connection.ask(LIST_REQUEST)
        return replies

    said = compare_exactly(agents, session)

    assert blob in said.pop("the key afterwards")
    assert said.pop("request-identities") == b"\x0c\x00\x00\x00\x00"
    assert set(said.values()) == {FAILURE}


def test_sessions_are_bound_while_locked(agent: Agent) -> None:
    """ssh does so before anything else, and goes on to use the connection after it is unlocked."""
    request = (RECORDED / "extension-session-bind-host-ed25519.bin").read_bytes()
    with agent.connect() as connection:
        assert connection.ask(locking(b"sesame")) == SUCCESS
        assert connection.ask(frame(request)) == SUCCESS


def test_a_wrong_passphrase_is_waited_for_by_nobody_else(agent: Agent) -> None:
    with agent.connect() as guessing, agent.connect() as other:
        assert guessing.ask(locking(b"sesame")) == SUCCESS
        for _ in range(3):
            assert guessing.ask(unlocking(b"barley")) == FAILURE
        started = time.monotonic()
        guessing.socket.sendall(unlocking(b"rye"))  # the fourth: at least 0.4 s
        answers = [other.ask(LIST_REQUEST) for _ in range(10)]
        guessing.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            guessing.socket.recv(1)
        guessing.socket.settimeout(30)
        assert guessing.reply() == FAILURE

        assert time.monotonic() - started >= 0.4
        assert answers == [b"\x0c\x00\x00\x00\x00"] * 10
        assert guessing.ask(unlocking(b"sesame")) == SUCCESS


def test_after_unlocking_all_keys_work_without_another_question(
    working_agent: Agent, token: Token, home: Home
) -> None:
    """Software keys of each kind, and the token's with its PIN."""
    files = [make_key(home, f"file-{kind}", kind) for kind in ("ed25519", "p384", "rsa")]
    publics = [*map(public_of, files), token.public("p256"), token.public("rsa2048")]
    assert working_agent.ssh_add(*files).status == 0, working_agent.log
    listed = working_agent.ssh_add("-L").out

    for _ in range(2):
        with working_agent.connect() as connection:
            assert connection.ask(locking(b"sesame")) == SUCCESS
            assert working_agent.ssh_add("-T", *publics).status == 1
            assert connection.ask(unlocking(b"sesame")) == SUCCESS
        assert working_agent.ssh_add("-T", *publics).status == 0, working_agent.log

    assert working_agent.ssh_add("-L").out == listed
