"""A slow token keeps nobody else waiting."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from rigs.agent import LIST_REQUEST, StartAgent
from rigs.faulty import Faulty


def test_listing_does_not_wait_for_a_signature(start_agent: StartAgent, faulty: Faulty) -> None:
    agent = start_agent("-P", "*", env=faulty.env)
    assert agent.add_provider(faulty.module, faulty.token.pin).status == 0, agent.log
    faulty.tell("C_Sign", "sleep 5")

    with ThreadPoolExecutor() as other, agent.connect() as connection:
        signing = other.submit(agent.ssh_add, "-T", faulty.public)
        faulty.await_calls("C_Sign")

        raw, whole = [], []
        for _ in range(10):
            start = time.perf_counter()
            reply = connection.ask(LIST_REQUEST)
            raw.append(time.perf_counter() - start)
            assert reply[:5] == b"\x0c\x00\x00\x00\x01"

            start = time.perf_counter()
            listed = agent.ssh_add("-l")
            whole.append(time.perf_counter() - start)
            assert listed.status == 0

        assert faulty.returns("C_Sign") == [], "the signature ended too early for this to show anything"
        assert signing.result().status == 0, agent.log

    # The fastest of ten: this is about waiting for the token, not about how busy the machine is.
    assert min(raw) < 0.05, raw
    assert min(whole) < 0.05, whole
