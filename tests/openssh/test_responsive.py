"""A slow token keeps nobody else waiting."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from rigs.agent import LIST_REQUEST, Agent, Connection, StartAgent
from rigs.faulty import Faulty


def test_listing_does_not_wait_for_a_signature(start_agent: StartAgent, faulty: Faulty) -> None:
    agent = start_agent("-P", "*", env=faulty.env)
    assert agent.add_provider(faulty.module, faulty.token.pin).status == 0, agent.log
    faulty.tell("C_Sign", "sleep 5")

    with ThreadPoolExecutor() as other, agent.connect() as connection:
        idle = [asked(connection) for _ in range(10)], [listed(agent) for _ in range(10)]
        signing = other.submit(agent.ssh_add, "-T", faulty.public)
        faulty.await_calls("C_Sign")

        busy = [asked(connection) for _ in range(10)], [listed(agent) for _ in range(10)]
        assert faulty.returns("C_Sign") == [], "the signature ended too early for this to show anything"
        assert signing.result().status == 0, agent.log

    # The fastest of ten, beside an agent that does nothing: this is not about how busy the machine is.
    for without, during in zip(idle, busy, strict=True):
        assert min(during) < max(0.05, 10 * min(without)), (without, during)


def asked(connection: Connection) -> float:
    """How long a listing takes on a connection."""
    start = time.perf_counter()
    reply = connection.ask(LIST_REQUEST)
    took = time.perf_counter() - start
    assert reply[:5] == b"\x0c\x00\x00\x00\x01"
    return took


def listed(agent: Agent) -> float:
    """How long `ssh-add -l` takes."""
    start = time.perf_counter()
    done = agent.ssh_add("-l")
    took = time.perf_counter() - start
    assert done.status == 0
    return took
