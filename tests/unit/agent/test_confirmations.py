"""When the user is asked before a signature, and for what a yes is remembered."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doubles.agent_bench import AgentBench
from doubles.private_keys import ed25519_key, message
from doubles.session_hosts import bind_of
from doubles.stand_ins import Key, run, settle

from replug.agent.clients.client import Client
from replug.agent.clients.peer import Peer
from replug.agent.config.confirm_when import ConfirmWhen
from replug.agent.config.model import Config
from replug.agent.config.options import Options
from replug.protocol.certificates import Certificate, CertificateType
from replug.protocol.constraints import Confirm
from replug.protocol.extensions import SESSION_BIND, SessionBind
from replug.protocol.messages import (
    Extension,
    ExtensionFailure,
    Failure,
    Lock,
    RemoveAllIdentities,
    SignRequest,
    SignResponse,
    Success,
    Unlock,
)
from replug.protocol.signed_data import SshSignature
from replug.protocol.userauth import UserauthRequest

KEY = ed25519_key()
SERVER, OTHER, BASTION = Key(), Key(), Key()
TEN_MINUTES = 600


class Desk(AgentBench):
    """An agent with one key in memory, and clients with all kinds of sessions."""

    now = 5000.0

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, **said: Any) -> None:
        monkeypatch.setattr("replug.agent.keyring.boottime", lambda: self.now)
        super().__init__(monkeypatch, folder, options=Options(config=Config(**said)))

    async def begin(self, *constraints: Confirm) -> None:
        assert await self.ask(bytes(message(KEY, *constraints, comment=b"key"))) == Success()

    async def bound(self, *binds: SessionBind) -> Client:
        client = self.new_client()
        for bind in binds:
            assert await self.ask(Extension(SESSION_BIND, bind.encode()), client) == Success()
        return client

    async def asks(self, client: Client, data: bytes) -> bool:
        """Whether this signature, which is made, was preceded by a question."""
        before = len(self.person.confirmations)
        assert isinstance(await self.ask(SignRequest(KEY.blob, data, 0), client), SignResponse)
        return len(self.person.confirmations) > before

    async def logs_in(self, host: Key, *hops: Key, user: str = "alice") -> bool:
        """The same for a login from a new connection."""
        forwards = [bind_of(hop, b"f%d" % place, forwarding=True) for place, hop in enumerate(hops)]
        return await self.asks(await self.bound(*forwards, bind_of(host, b"s")), login(user))

    async def signs_for(self, namespace: bytes, *hops: Key) -> bool:
        """The same for `ssh-keygen -Y sign`."""
        forwards = [bind_of(hop, b"f%d" % place, forwarding=True) for place, hop in enumerate(hops)]
        return await self.asks(await self.bound(*forwards), sshsig(namespace))


def login(user: str = "alice") -> bytes:
    return UserauthRequest(b"s", user, "ssh-ed25519", KEY.blob).encode()


def sshsig(namespace: bytes) -> bytes:
    return SshSignature(namespace, "sha512", bytes(64)).encode()


def certificate_body() -> bytes:
    now = int(time.time())
    return Certificate(
        nonce=b"nonce",
        key=Key().public,
        serial=1,
        type=CertificateType.USER,
        key_id=b"ten years",
        principals=(b"root",),
        valid_after=now,
        valid_before=now + 315_360_000,
        critical_options=(),
        extensions=(),
        reserved=b"",
        ca_key=KEY.blob,
        signature=b"",
    ).body()


FORWARDED_AND_OTHER = ConfirmWhen.FORWARDED | ConfirmWhen.OTHER


@pytest.mark.parametrize(
    ("when", "asked"),
    [
        (ConfirmWhen.NEVER, set()),
        (ConfirmWhen.FORWARDED, {"forwarded login", "forwarded signature", "unverified", "forwarded CA"}),
        (
            ConfirmWhen.OTHER,
            {"unbound login", "signature", "forwarded signature", "unverified", "forwarded CA"},
        ),
        (
            FORWARDED_AND_OTHER,
            {
                "forwarded login",
                "unbound login",
                "signature",
                "forwarded signature",
                "unverified",
                "forwarded CA",
            },
        ),
        (
            ConfirmWhen.ALWAYS,
            {
                "login",
                "forwarded login",
                "unbound login",
                "signature",
                "forwarded signature",
                "unverified",
                "forwarded CA",
            },
        ),
    ],
)
def test_which_requests_are_asked_about(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, when: ConfirmWhen, asked: set[str]
) -> None:
    async def main() -> None:
        desk = Desk(monkeypatch, tmp_path, confirm=when)
        await desk.begin()
        unverified = desk.new_client()
        forged = replace(bind_of(SERVER, b"s"), session_id=b"another")
        assert await desk.ask(Extension(SESSION_BIND, forged.encode()), unverified) == ExtensionFailure()
        bastion = await desk.bound(bind_of(BASTION, b"f", forwarding=True))
        assert asked == {
            name
            for name, was_asked in {
                "login": await desk.logs_in(SERVER),
                "forwarded login": await desk.logs_in(SERVER, BASTION),
                "unbound login": await desk.asks(desk.new_client(), login()),
                "signature": await desk.signs_for(b"git"),
                "forwarded signature": await desk.signs_for(b"git", BASTION),
                "unverified": await desk.asks(unverified, login()),
                "forwarded CA": await desk.asks(bastion, certificate_body()),
            }.items()
            if was_asked
        }

    run(main())


def test_a_certificate_that_a_far_host_wants_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The attack: root of a host makes itself a certificate for ten years with a CA key in the agent."""

    async def main() -> None:
        desk = Desk(monkeypatch, tmp_path, confirm=ConfirmWhen.OTHER)
        await desk.begin()
        desk.person.agrees = False
        there = await desk.bound(bind_of(BASTION, b"f", forwarding=True))
        assert await desk.ask(SignRequest(KEY.blob, certificate_body(), 0), there) == Failure()
        [question] = desk.person.confirmations
        words = question.text().splitlines()
        assert words[2].startswith("user certificate, valid until ")
        assert words[2].endswith("(3650 days from now)")
        assert words[3].startswith("for a program on the host with key ")
        assert words[4:6] == ["for root", 'key id "ten years"']

    run(main())


def test_the_constraint_is_stricter_than_any_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        desk = Desk(monkeypatch, tmp_path, confirm=ConfirmWhen.FORWARDED, confirm_for=TEN_MINUTES)
        await desk.begin(Confirm())
        assert [await desk.logs_in(SERVER) for _ in range(3)] == [True] * 3

    run(main())


def test_a_yes_is_remembered_for_the_same_and_for_a_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        desk = Desk(monkeypatch, tmp_path, confirm=ConfirmWhen.ALWAYS, confirm_for=TEN_MINUTES)
        await desk.begin()
        assert [await desk.logs_in(SERVER) for _ in range(3)] == [True, False, False]
        assert await desk.logs_in(OTHER)
        assert await desk.logs_in(SERVER, user="root")
        assert [await desk.signs_for(b"git") for _ in range(2)] == [True, False]
        assert await desk.signs_for(b"file")
        desk.now += TEN_MINUTES
        assert [await desk.logs_in(SERVER) for _ in range(2)] == [True, False]

    with caplog.at_level(logging.INFO):
        run(main())
    said = [record.__dict__["confirmed"] for record in caplog.records if record.message == "signed"]
    assert said[:4] == ["by the user", "by a remembered yes", "by a remembered yes", "by the user"]


def test_what_is_never_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def main() -> None:
        desk = Desk(
            monkeypatch,
            tmp_path,
            confirm=ConfirmWhen.ALWAYS,
            confirm_for=TEN_MINUTES,
            confirm_for_forwarded=TEN_MINUTES,
        )
        await desk.begin()
        here = desk.new_client()
        for data in (certificate_body(), bytes(100), login()):  # the login is in a session we do not know
            assert [await desk.asks(here, data) for _ in range(2)] == [True, True]
        unknown = Client(Peer(2**22 + 1, 0))  # no such process
        assert [await desk.asks(unknown, sshsig(b"git")) for _ in range(2)] == [True, True]
        unverified = desk.new_client()
        assert await desk.ask(Extension(SESSION_BIND, b"bad"), unverified) == ExtensionFailure()
        assert [await desk.asks(unverified, sshsig(b"git")) for _ in range(2)] == [True, True]

    run(main())


@pytest.mark.parametrize("seconds", [0, TEN_MINUTES])
def test_over_a_forwarded_connection_only_if_that_is_configured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seconds: int
) -> None:
    async def main() -> None:
        desk = Desk(
            monkeypatch,
            tmp_path,
            confirm=ConfirmWhen.ALWAYS,
            confirm_for=TEN_MINUTES,
            confirm_for_forwarded=seconds,
        )
        await desk.begin()
        assert await desk.logs_in(SERVER)
        assert await desk.signs_for(b"git")
        # What was said for this machine is not said for a host, and for one host not for another.
        again = seconds == 0
        for hops in ((BASTION,), (OTHER,), (BASTION, OTHER)):
            assert [await desk.logs_in(SERVER, *hops) for _ in range(2)] == [True, again]
            assert [await desk.signs_for(b"git", *hops) for _ in range(2)] == [True, again]

    run(main())


def test_another_program_is_asked_about(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program is its executable, whatever it calls itself."""

    async def main() -> None:
        desk = Desk(monkeypatch, tmp_path, confirm=ConfirmWhen.ALWAYS, confirm_for=TEN_MINUTES)
        await desk.begin()
        assert await desk.signs_for(b"git")
        sleep = await asyncio.create_subprocess_exec("sleep", "600")
        try:
            assert await desk.asks(Client(Peer(sleep.pid, 0)), sshsig(b"git"))
            assert not await desk.asks(Client(Peer(sleep.pid, 0)), sshsig(b"git"))
        finally:
            sleep.kill()
            await sleep.wait()
        assert not await desk.signs_for(b"git")

    run(main())


@pytest.mark.parametrize("event", ["lock", "ssh-add -D", "replug forget", "configuration"])
@pytest.mark.parametrize("while_asked", [False, True])
def test_it_does_not_outlive(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, event: str, while_asked: bool
) -> None:
    async def happens(desk: Desk) -> None:
        match event:
            case "lock":
                assert await desk.ask(Lock(bytearray(b"secret"))) == Success()
                assert await desk.ask(Unlock(bytearray(b"secret"))) == Success()
            case "ssh-add -D":
                assert await desk.ask(RemoveAllIdentities()) == Success()
                await desk.begin()
            case "replug forget":
                desk.keyring.forget_pins()
            case "configuration":
                desk.keyring.change_options(desk.keyring.settings.options)

    async def main() -> None:
        desk = Desk(monkeypatch, tmp_path, confirm=ConfirmWhen.ALWAYS, confirm_for=TEN_MINUTES)
        await desk.begin()
        if while_asked:
            desk.person.may_answer = (answered := asyncio.Event()).wait()
            asking = asyncio.create_task(desk.signs_for(b"git"))
            await desk.person.asked.wait()
            await happens(desk)
            answered.set()
            assert await asking
            desk.person.may_answer = None
        else:
            assert await desk.signs_for(b"git")
            assert not await desk.signs_for(b"git")
            await happens(desk)
        assert await desk.signs_for(b"git")

    run(main())


def test_a_yes_answers_the_same_question_of_others_who_wait(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        desk = Desk(monkeypatch, tmp_path, confirm=ConfirmWhen.ALWAYS, confirm_for=TEN_MINUTES)
        await desk.begin()
        desk.person.may_answer = (answered := asyncio.Event()).wait()
        asking = [asyncio.create_task(desk.signs_for(b"git")) for _ in range(5)]
        await desk.person.asked.wait()
        await settle()
        answered.set()
        await asyncio.gather(*asking)
        assert len(desk.person.confirmations) == 1

    run(main())


def test_a_crowd_of_questions_is_refused_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The attack: 100 requests over a forwarded connection, and the user's own login behind them."""

    async def main() -> None:
        desk = Desk(monkeypatch, tmp_path, confirm=ConfirmWhen.ALWAYS)
        await desk.begin()
        desk.person.may_answer = (answered := asyncio.Event()).wait()
        crowd = [await desk.bound(bind_of(BASTION, b"f", forwarding=True)) for _ in range(100)]
        request = SignRequest(KEY.blob, sshsig(b"git"), 0)
        asking = [asyncio.create_task(desk.ask(request, client)) for client in crowd]
        await settle()
        assert sum(task.done() for task in asking) == 91
        assert set(desk.reasons) == {
            "key key needs a confirmation: 8 questions of the same program and host are waiting for an answer"
        }
        here = Client(Peer(os.getppid(), os.getuid()))  # their login is another process than the one there
        assert await desk.ask(Extension(SESSION_BIND, bind_of(SERVER, b"s").encode()), here) == Success()
        own = asyncio.create_task(desk.ask(SignRequest(KEY.blob, login(), 0), here))
        await settle()
        desk.person.agrees = False
        answered.set()
        desk.person.may_answer = None
        assert await asyncio.gather(own, *asking) == [Failure()] * 101
        lines = [question.asker.purpose[0].split(" ")[0] for question in desk.person.confirmations]
        assert lines[:2] == ["SSHSIG", "login"]
        # Of the others one more was asked: then there is a pause.
        assert len(lines) == 3

    run(main())
