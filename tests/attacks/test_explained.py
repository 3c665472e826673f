"""A program whose requests are refused all the time: the user still finds out why another was refused."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

from attacks.test_neighbours import busy
from rigs.agent import FAILURE, Agent, sign_request

REPLUG = Path(sys.executable).with_name("replug")


def test_many_refusals_do_not_hide_the_one_that_is_looked_for(agent: Agent) -> None:
    done = agent.ssh_add("-s", "/usr/lib/no-such-module.so", typing=[("Enter passphrase for PKCS#11: ", "1")])
    assert done.status != 0
    noise = [sign_request(b"key %d" % number) for number in range(30)]
    with agent.connect() as connection:
        assert {connection.ask(one) for one in noise} == {FAILURE}
    with busy(agent, 10, *noise):
        explained = agent.run(REPLUG, "explain", "-n", "20").out
        few = agent.run(REPLUG, "explain").out
    assert "no-such-module.so does not exist" in explained, explained
    assert " earlier refusals are not shown; to see all of them: replug explain -n " in few, few


def test_nor_do_those_of_another_process_of_the_program(agent: Agent) -> None:
    with agent.connect() as connection:
        assert connection.ask(sign_request(b"the key that is looked for")) == FAILURE
    noise = b"".join(sign_request(b"key %d" % number) for number in range(30))
    client = f"import socket; s = socket.socket(1); s.connect({str(agent.socket)!r}); s.sendall({noise!r})"
    assert agent.run(sys.executable, "-c", f"{client}; s.recv(30 * 5, 256)").status == 0
    explained = agent.run(REPLUG, "explain", "-n", "20").out
    assert f"(pid {os.getpid()})" in explained, explained


def test_connections_that_are_closed_do_not_fill_the_log(agent: Agent) -> None:
    """They cost a program, or a host that the agent is forwarded to, no more than a length that is none."""
    for length in range(1000):
        with agent.connect() as connection:
            assert connection.ask(struct.pack(">I", 2**32 - 1 - length)) == b""
    assert agent.log.count("\n") < 300
    assert agent.log.count("too many refusals: no more of this program's in this minute") == 1
    assert "message of 4294966296 bytes" in agent.run(REPLUG, "explain").out.replace("\n", " ")


def test_refusals_do_not_fill_the_log(agent: Agent) -> None:
    """One that takes so many lines in half a minute, as journald does, then drops those of signatures."""
    with agent.connect() as connection:
        for begin in range(0, 3000, 50):
            connection.socket.sendall(b"".join(sign_request(b"key %d" % (begin + one)) for one in range(50)))
            assert {connection.reply() for _ in range(50)} == {FAILURE}
    assert agent.log.count("\n") < 300
    assert agent.log.count("too many refusals: no more of this program's in this minute") == 1
    done = agent.ssh_add("-s", "/usr/lib/none.so", typing=[("Enter passphrase for PKCS#11: ", "1")])
    assert done.status != 0
    assert "/usr/lib/none.so does not exist" in agent.log
