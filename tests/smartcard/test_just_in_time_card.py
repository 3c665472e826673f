"""Certificates just in time by a CA key in slot 9c, which wants the PIN at every use: counted at the card."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from doubles.session_hosts import bind_of
from doubles.stand_ins import Key
from rigs.agent import LIST_REQUEST, Agent, Connection, StartAgent, frame
from rigs.askpass import Askpass
from rigs.home import Home
from rigs.pcscd import Pcscd
from rigs.piv_card import PIN, Card
from rigs.sshd import USER, Server
from rigs.terminal import eventually

from replug.protocol.decoding import decode_response
from replug.protocol.keys import fingerprint
from replug.protocol.messages import Extension, IdentitiesAnswer

REPLUG = Path(sys.executable).with_name("replug")
HOST = Key()
ALWAYS_DUE = {"lifetime": '"10m"', "renew_before": '"9m59s"'}


@pytest.fixture
def authority(always: Path) -> Path:
    """The .pub file of the CA key."""
    return always


@pytest.fixture
def server(home: Home, authority: Path) -> Server:
    """A server that trusts the CA key and no other."""
    return Server(home, f"TrustedUserCAKeys {authority}")


@pytest.fixture
def start(
    home: Home, server: Server, authority: Path, module: Path, start_agent: StartAgent, askpass: Askpass
) -> Iterator[Any]:
    """Starts an agent with a rule for the server and for HOST; `above` is for the whole file."""

    def start(above: str = "", **settings: str) -> Agent:
        ca, key = (
            home.run("ssh-keygen", "-lf", file).out.split()[1] for file in (authority, server.host_key)
        )
        lines = [
            f'modules = ["{module}"]',
            above,
            "[[certificate]]",
            f'ca = "{ca}"',
            f'hosts = ["{key}", "{fingerprint(HOST.blob)}"]',
            f'principals = ["{USER}"]',
            *(f"{name} = {value}" for name, value in settings.items()),
        ]
        home.configure("\n".join(lines))
        agent = start_agent()
        eventually(lambda: agent.ssh_add("-l").status == 0, "the card's keys are listed", 20)
        return agent

    askpass.answers(PIN)
    return start


def bound(agent: Agent) -> Connection:
    """A connection that ssh would have to HOST."""
    connection = agent.connect(timeout=60)
    request = Extension("session-bind@openssh.com", bind_of(HOST, b"session").encode())
    assert connection.ask(frame(request.encode())) == b"\x06"
    return connection


def first(agent: Agent) -> bytes:
    """What HOST's connection is listed first; empty for nothing."""
    answer = decode_response(bound(agent).ask(LIST_REQUEST))
    assert isinstance(answer, IdentitiesAnswer)
    return answer.identities[0].key_blob if answer.identities else b""


def is_certificate(blob: bytes) -> bool:
    return b"-cert-" in blob[:40]


def reason(agent: Agent) -> str:
    """Why the last attempt made no certificate."""
    (rule,) = json.loads(agent.run(REPLUG, "status", "--json").out)["certificates"]
    return str(rule["failed"])


def test_one_signature_for_all_and_none_while_it_is_valid(
    start: Any, server: Server, card: Card, pcscd: Pcscd, askpass: Askpass
) -> None:
    agent = start()
    connections = [bound(agent) for _ in range(32)]

    with ThreadPoolExecutor(32) as clients:
        lists = set(clients.map(lambda connection: connection.ask(LIST_REQUEST), connections))
    assert len(lists) == 1, agent.log
    assert (card.signatures, len(askpass.questions)) == (1, 1)

    pcscd.slot.remove()
    for _ in range(2):
        done = server.login(agent)
        assert done.out == f"in {USER}\n", (done, server.log, agent.log)
    assert (card.signatures, card.wrong_pins, len(askpass.questions)) == (1, 0, 1)


def test_a_card_that_is_back_renews_without_a_question(
    start: Any, server: Server, card: Card, pcscd: Pcscd, askpass: Askpass
) -> None:
    agent = start(**ALWAYS_DUE)
    before = first(agent)
    assert is_certificate(before), agent.log
    pcscd.slot.remove()
    pcscd.slot.insert(card)
    pcscd.await_present()

    def renewed() -> bool:
        now = first(agent)
        return is_certificate(now) and now != before

    eventually(renewed, "a new certificate", 30)
    assert (card.wrong_pins, len(askpass.questions)) == (0, 1)


def test_while_the_card_is_out_the_certificate_is_listed_to_its_end(
    start: Any, server: Server, pcscd: Pcscd
) -> None:
    """Renewing fails, and takes nothing away; nobody waits for the card who can log in without."""
    agent = start('wait_for_token = "5m"', **ALWAYS_DUE)
    before = first(agent)
    pcscd.slot.remove()
    eventually(lambda: (first(agent), bool(reason(agent)))[1], "an attempt that fails", 30)

    assert first(agent) == before
    assert "the certificate is not renewed" in agent.log
    assert server.login(agent).out == f"in {USER}\n", (server.log, agent.log)
    assert "plug" in agent.run(REPLUG, "status").out


def test_with_no_certificate_the_card_is_waited_for(
    start: Any, server: Server, card: Card, pcscd: Pcscd
) -> None:
    agent = start('wait_for_token = "1m"')
    pcscd.slot.remove()
    eventually(lambda: "is absent" in agent.run(REPLUG, "status").out, "that the card is out", 20)
    with ThreadPoolExecutor(1) as clients:
        login = clients.submit(server.login, agent)
        eventually(lambda: "waiting for a token to be plugged in" in agent.log, "the wait", 20)
        assert "user certificate for a login at" in agent.log
        # Others are not kept waiting.
        assert agent.ssh_add("-l").status == 0
        pcscd.slot.insert(card)
        done = login.result(60)

    assert done.out == f"in {USER}\n", (done, server.log, agent.log)


def test_the_card_is_pulled_in_the_middle_of_the_signature(
    start: Any, server: Server, card: Card, pcscd: Pcscd, askpass: Askpass
) -> None:
    agent = start()
    card.delay = 5.0

    def pull() -> None:
        card.await_signature(1, 30)
        pcscd.slot.remove()

    pulling = threading.Thread(target=pull)
    pulling.start()
    assert server.login(agent).status == 255
    pulling.join()
    assert reason(agent), agent.log
    assert "certificate issued" not in agent.log

    card.delay = 0.0
    pcscd.slot.insert(card)
    pcscd.await_present()
    eventually(lambda: is_certificate(first(agent)), "a certificate", 30)
    assert server.login(agent).out == f"in {USER}\n", (server.log, agent.log)
    assert (card.wrong_pins, len(askpass.questions)) == (0, 1)
