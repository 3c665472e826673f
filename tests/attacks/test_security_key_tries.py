"""A host that the agent is forwarded to has no more wrong PINs sent to the user's security key."""

from __future__ import annotations

import sys
from pathlib import Path

from doubles.session_hosts import bind_of
from doubles.stand_ins import Key
from rigs.agent import StartAgent, frame, string
from rigs.askpass import Askpass
from rigs.home import Home
from rigs.key_files import public_of
from rigs.security_keys import add, answer_of, helper_that, make_sk_key

from replug.protocol.messages import Extension

REPLUG = Path(sys.executable).with_name("replug")
SUCCESS, ADD = b"\x06", b"\x19"
WRONG_PIN = (5, *bytes(4), *(43).to_bytes(4, "big"))
"""ssh-sk-helper's answer: its version, that it is an error, and which (ssherr.h)."""


def another_key() -> bytes:
    """A request to add a FIDO key that was made up."""
    key = b"".join(map(string, (b"sk-ssh-ed25519@openssh.com", bytes(32), b"ssh:")))
    key += b"\1" + string(b"handle") + string(b"") + string(b"comment")
    return frame(ADD + key + b"\xff" + string(b"sk-provider@openssh.com") + string(b"internal"))


def test_a_key_that_it_adds_does_not_begin_the_count_again(
    home: Home, start_agent: StartAgent, askpass: Askpass
) -> None:
    agent = start_agent(env=askpass.env | helper_that(home, answer_of(*WRONG_PIN)))
    key = make_sk_key(home, "id_sk")
    assert add(agent, key, "internal").status == 0, agent.log
    for wrong in ("1111", "2222"):
        askpass.answers(wrong)
        assert agent.ssh_add("-T", public_of(key)).status == 1

    with agent.connect() as connection:
        request = Extension("session-bind@openssh.com", bind_of(Key(), b"a", forwarding=True).encode())
        assert connection.ask(frame(request.encode())) == SUCCESS
        assert connection.ask(another_key()) == SUCCESS, agent.log

    askpass.answers("3333")
    assert agent.ssh_add("-T", public_of(key)).status == 1
    assert len(askpass.questions) == 2
    said = " ".join(agent.run(REPLUG, "explain").out.split())
    assert "2 wrong PINs were sent, and a third is not" in said
    # The user may.
    assert add(agent, key, "internal").status == 0, agent.log
    assert agent.ssh_add("-T", public_of(key)).status == 1
    assert len(askpass.questions) == 3
