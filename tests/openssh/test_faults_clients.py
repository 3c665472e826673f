"""Clients that misbehave are answered or closed, and all the others are served."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest
from rigs.agent import FAILURE, LIST_REQUEST, Agent, Connection, StartAgent, frame, sign_request, string
from rigs.home import Home
from rigs.softhsm import Token

MAX_MESSAGE = 262144


@pytest.fixture(autouse=True)
def still_serving(agent: Agent) -> object:
    """Whatever a test here does, the agent has to answer afterwards."""
    yield
    assert agent.alive(), agent.log


@pytest.mark.parametrize(
    "contents",
    [
        pytest.param(b"\xff", id="unknown type"),
        pytest.param(b"\x01", id="a type of protocol 1"),
        pytest.param(b"\x0d", id="a sign request that ends at once"),
        pytest.param(b"\x0d" + struct.pack(">I", 0xFFFFFFFF), id="a string longer than the message"),
        pytest.param(sign_request(b"not a key")[4:], id="a key that is none"),
        pytest.param(b"\x14" + string(b"/x\0y") + string(b""), id="a path with a NUL"),
        pytest.param(b"\x14" + string(b"\xff\xfe") + string(b""), id="a path that is not UTF-8"),
        pytest.param(b"\x1b" + string(b"nobody@knows"), id="an unknown extension"),
        pytest.param(b"\x16", id="a lock without a passphrase"),
        pytest.param(os.urandom(1000).replace(b"\x0b", b"\x0c"), id="noise"),
        pytest.param(b"\x0d" + bytes(MAX_MESSAGE - 1), id="the longest message there is"),
    ],
)
def test_a_message_that_makes_no_sense_is_refused(contents: bytes, agent: Agent) -> None:
    with agent.connect() as connection:
        refused = connection.ask(frame(contents))
        listed = connection.ask(LIST_REQUEST)

    assert refused in (FAILURE, b"\x1c"), agent.log
    assert listed == b"\x0c\x00\x00\x00\x00"


@pytest.mark.parametrize("length", [0, MAX_MESSAGE + 1, 0xFFFFFFFF])
def test_an_impossible_length_closes_the_connection(length: int, agent: Agent) -> None:
    with agent.connect() as connection:
        assert connection.ask(struct.pack(">I", length) + b"\x0b") == b""


@pytest.mark.parametrize("start", [b"\x00", b"\x00\x00\x00\x05", b"\x00\x00\x00\x05\x0d\x00"])
def test_a_client_that_stops_in_the_middle(start: bytes, agent: Agent) -> None:
    with agent.connect() as silent:
        silent.socket.sendall(start)
        assert agent.alive()
        silent.socket.shutdown(socket.SHUT_WR)
        assert silent.reply() == b""


def test_a_request_in_single_bytes_and_several_in_one_write(agent: Agent) -> None:
    with agent.connect() as connection:
        for byte in LIST_REQUEST:
            connection.socket.sendall(bytes([byte]))
        assert connection.reply() == b"\x0c\x00\x00\x00\x00"

        connection.socket.sendall(LIST_REQUEST + frame(b"\xff") + LIST_REQUEST)
        assert [connection.reply() for _ in range(3)] == [
            b"\x0c\x00\x00\x00\x00",
            FAILURE,
            b"\x0c\x00\x00\x00\x00",
        ]


def test_a_client_that_half_closes_gets_its_answer(working_agent: Agent, token: Token) -> None:
    with working_agent.connect() as connection:
        connection.socket.sendall(LIST_REQUEST)
        connection.socket.shutdown(socket.SHUT_WR)

        assert connection.reply()[:5] == b"\x0c\x00\x00\x00\x06"
        assert connection.reply() == b""


def test_a_client_that_never_reads_its_replies(working_agent: Agent, token: Token) -> None:
    """It may be made to wait, or closed; its replies do not pile up in the agent's memory."""

    def resident_kib() -> int:
        status = Path(f"/proc/{working_agent.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def send_until_it_blocks(connection: Connection) -> None:
        for _ in range(100):  # a million listings of six keys: 2 GB of replies
            connection.socket.sendall(LIST_REQUEST * 10_000)

    before = resident_kib()
    with working_agent.connect(timeout=1) as deaf:
        with pytest.raises((TimeoutError, ConnectionError)):
            send_until_it_blocks(deaf)
        assert working_agent.alive()
        assert resident_kib() < before + 20_000


def test_five_hundred_connections(working_agent: Agent, token: Token) -> None:
    connections = [working_agent.connect() for _ in range(500)]
    try:
        connections[250].socket.sendall(b"\x00")
        replies = [
            connection.ask(LIST_REQUEST)[:5] for number, connection in enumerate(connections) if number != 250
        ]
        assert replies == [b"\x0c\x00\x00\x00\x06"] * 499
        assert working_agent.ssh_add("-T", token.public("p256")).status == 0
    finally:
        for connection in connections:
            connection.socket.close()


def test_clients_that_hang_up_use_nothing_up(
    start_agent: StartAgent, request: pytest.FixtureRequest, home: Home
) -> None:
    """With 64 file descriptors in all."""
    program = request.config.getoption("agent")
    frugal = start_agent(
        program=home.write("frugal-agent", f'#!/bin/sh\nulimit -n 64\nexec {program} "$@"\n', 0o700)
    )

    for _ in range(200):
        with frugal.connect() as connection:
            connection.socket.sendall(LIST_REQUEST[:3])

    assert frugal.alive(), frugal.log
