"""Guests: other users of the machine, who get certificates of their own and nothing else."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doubles.agent_bench import ControlRig
from doubles.certificate_bench import CA, LOGIN, RULE, SERVER, CertificateBench
from doubles.private_keys import ed25519_key, message
from doubles.session_hosts import bind_of
from doubles.stand_ins import PIN, Key, Person, run, settle

from replug.agent.ca import guests as guests_module
from replug.agent.clients.client import Client
from replug.agent.clients.peer import Peer
from replug.agent.config.ca_entry import CaEntry
from replug.agent.config.certificate_rule import CertificateRule
from replug.agent.config.model import Config
from replug.agent.config.options import Options
from replug.agent.desktop.touch_notice import TouchNotices
from replug.agent.keys.constraints import KeyConstraints
from replug.agent.keys.refusal import RequestRefusedError
from replug.protocol.constants import MessageType
from replug.protocol.extensions import QUERY, SESSION_BIND
from replug.protocol.messages import (
    AddSmartcardKey,
    Extension,
    ExtensionFailure,
    ExtensionResponse,
    Failure,
    Lock,
    RemoveAllIdentities,
    RemoveIdentity,
    RemoveSmartcardKey,
    RequestIdentities,
    SignRequest,
    SignResponse,
    Success,
    Unlock,
)
from replug.protocol.signatures import verify_any
from replug.token.identity import TokenFlag
from replug.token.prompts.request import Asker
from replug.token.prompts.terminals import Terminals
from replug.token.requester import NOBODY, Guest, Requester, requester

OURS = os.geteuid()
ALICE, BOB, EVE = (OURS + number for number in (1001, 1002, 1003))
FOR_ALL = replace(RULE, users=("@admins",), key_id="{user}@bastion", principals=("root", "{user}"))


class Machine:
    """Its users, who are in one group or not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names = {ALICE: "alice", BOB: "bob", EVE: "eve", OURS: "service"}
        self.admins = {"alice", "bob"}
        monkeypatch.setattr(pwd, "getpwuid", self._user)
        monkeypatch.setattr(os, "getgrouplist", lambda name, _: [7] if name in self.admins else [8])
        monkeypatch.setattr(grp, "getgrnam", lambda name: SimpleNamespace(gr_gid={"admins": 7}[name]))

    def _user(self, uid: int) -> Any:
        return SimpleNamespace(pw_name=self.names[uid], pw_gid=uid)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


class Bench(CertificateBench):
    """A service for guests, whose own user has typed the PIN."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, **said: Any) -> None:
        self.clock = 5000.0
        super().__init__(monkeypatch, folder, Person(), **{"certificate_rules": (FOR_ALL,), **said})

    async def serve(self, pin: bytes = PIN) -> None:
        for token in ("one", "two"):
            assert await self.add(provider=self.uri(f"token={token}"), pin=pin) == Success()

    async def guest(self, uid: int = ALICE, host: Key | None = SERVER) -> Client:
        """A client of another user, that logs in at `host` or does not say where."""
        client = Client(Peer(os.getpid(), uid))
        return client if host is None else await self.bound(host, client=client)

    @property
    def signatures(self) -> int:
        """How many the tokens have made."""
        return self.slots.operations.count("sign")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: Machine) -> Bench:
    return Bench(monkeypatch, tmp_path)


def test_each_guest_has_a_key_and_a_certificate_of_their_own(bench: Bench) -> None:
    async def main() -> None:
        await bench.serve()
        alice, bob = await bench.guest(ALICE), await bench.guest(BOB)
        hers, his = await bench.certificate(alice), await bench.certificate(bob)
        assert hers is not None
        assert his is not None
        assert (hers.key_id, hers.principals) == (b"alice@bastion", (b"root", b"alice"))
        assert (his.key_id, his.principals) == (b"bob@bastion", (b"root", b"bob"))
        assert hers.key != his.key
        # Nothing else is listed, to whom and where ever they log in.
        assert await bench.keys(alice) == [hers.encode()]
        assert await bench.keys(await bench.guest(ALICE, None)) == [hers.encode()]
        assert await bench.keys(await bench.guest(ALICE, Key())) == []
        assert bench.signatures == 2
        # And to the agent's own user nothing of it: there is no rule for that one.
        for client in (bench.client, await bench.bound()):
            keys = await bench.keys(client)
            assert LOGIN.blob in keys
            assert not {hers.encode(), his.encode()} & {*keys}
        lines = bench.journal.read_text()
        assert '"user": "alice"' in lines
        assert f'"uid": {BOB}' in lines
        bench.keyring.end()

    run(main())


def test_a_guest_signs_with_own_certificates_only(bench: Bench) -> None:
    async def main() -> None:
        await bench.serve()
        alice, bob = await bench.guest(ALICE), await bench.guest(BOB)
        hers, his = await bench.certificate(alice), await bench.certificate(bob)
        assert hers is not None
        assert his is not None
        reply = await bench.ask(SignRequest(hers.encode(), b"data", 0), await bench.guest(ALICE, None))
        assert isinstance(reply, SignResponse)
        verify_any(hers.key, reply.signature, b"data")
        others = (his.encode(), his.key.encode(), hers.key.encode(), CA.blob, LOGIN.blob)
        for client in (alice, await bench.guest(ALICE, None)):
            for blob in others:
                assert await bench.ask(SignRequest(blob, b"data", 0), client) == Failure()
        # A certificate's body for the CA key, too.
        assert await bench.ask(SignRequest(CA.blob, hers.body(), 0), alice) == Failure()
        assert await bench.ask(SignRequest(hers.encode(), b"data", 0), bench.client) == Failure()
        assert bench.signatures == 2
        bench.keyring.end()

    run(main())


def test_what_else_a_guest_sends_is_refused_before_it_is_decoded(bench: Bench) -> None:
    async def main() -> None:
        await bench.serve()
        alice = await bench.guest()
        before = await bench.listed()
        requests = [
            bytes(message(ed25519_key())),
            AddSmartcardKey(str(bench.module).encode(), b"pin", ()).encode(),
            RemoveSmartcardKey(str(bench.module).encode(), b"").encode(),
            RemoveIdentity(CA.blob).encode(),
            RemoveAllIdentities().encode(),
            Lock(b"x").encode(),
            Unlock(b"x").encode(),
            *(bytes([kind, 1]) for kind in MessageType),
        ]
        allowed = {MessageType.REQUEST_IDENTITIES, MessageType.SIGN_REQUEST, MessageType.EXTENSION}
        for request in requests:
            kind = request[0]
            if kind not in allowed:
                assert await bench.ask(request, alice) == Failure()
                assert ("may list certificates and sign" in bench.reasons[-1]) == (
                    MessageType(kind) in _REQUESTS
                )
        assert await bench.listed() == before
        query = await bench.ask(Extension(QUERY, b""), alice)
        assert isinstance(query, ExtensionResponse)
        assert await bench.ask(Extension("other@example.com", b""), alice) == Failure()
        bench.keyring.end()

    run(main())


_REQUESTS = {
    MessageType.ADD_IDENTITY,
    MessageType.ADD_ID_CONSTRAINED,
    MessageType.ADD_SMARTCARD_KEY,
    MessageType.ADD_SMARTCARD_KEY_CONSTRAINED,
    MessageType.REMOVE_SMARTCARD_KEY,
    MessageType.REMOVE_IDENTITY,
    MessageType.REMOVE_ALL_IDENTITIES,
    MessageType.REMOVE_ALL_RSA1_IDENTITIES,
    MessageType.LOCK,
    MessageType.UNLOCK,
}


def test_the_group_is_looked_up_at_each_request(bench: Bench, machine: Machine) -> None:
    async def main() -> None:
        await bench.serve()
        eve = Client(Peer(os.getpid(), EVE))
        assert await bench.ask(RequestIdentities(), eve) == Failure()
        assert bench.reasons[-1] == "no [[certificate]] names user eve, nor a group that eve is in now"
        bind = Extension(SESSION_BIND, bind_of(SERVER, b"session").encode())
        assert await bench.ask(bind, eve) == Failure()
        assert not eve.remote

        alice = await bench.guest()
        certificate = await bench.certificate(alice)
        assert certificate is not None
        machine.admins.remove("alice")
        for request in (RequestIdentities(), SignRequest(certificate.encode(), b"data", 0)):
            assert await bench.ask(request, alice) == Failure()
        machine.admins.add("alice")
        assert await bench.keys(alice) == [certificate.encode()]
        # Somebody else has the number now.
        machine.names[ALICE] = "alicia"
        machine.admins = {"alicia"}
        client = await bench.guest(ALICE, None)
        assert await bench.keys(client) == []
        assert await bench.ask(SignRequest(certificate.encode(), b"data", 0), client) == Failure()
        bench.keyring.end()

    run(main())


def test_who_is_taken_out_of_one_group_of_two_loses_what_that_one_had(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: Machine
) -> None:
    """The other rule, for another host, still names her."""
    elsewhere = replace(FOR_ALL, users=("alice",), hosts=("db",), principals=("reader",))
    bench = Bench(monkeypatch, tmp_path, certificate_rules=(FOR_ALL, elsewhere))

    async def main() -> None:
        await bench.serve()
        alice, unbound = await bench.guest(), await bench.guest(host=None)
        certificate = await bench.certificate(alice)
        assert certificate is not None
        assert await bench.keys(unbound) == [certificate.encode()]
        machine.admins.remove("alice")
        for client in (alice, unbound):
            assert await bench.keys(client) == []
            assert await bench.ask(SignRequest(certificate.encode(), b"data", 0), client) == Failure()
        machine.admins.add("alice")
        reply = await bench.ask(SignRequest(certificate.encode(), b"data", 0), alice)
        assert isinstance(reply, SignResponse)
        bench.keyring.end()

    run(main())


def test_users_may_be_named_and_a_rule_is_theirs_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: Machine
) -> None:
    rules = (
        replace(FOR_ALL, users=("bob", "@nosuchgroup"), principals=("web",)),
        replace(FOR_ALL, users=("@admins",), principals=("root",)),
        replace(RULE, principals=("own",)),
    )
    bench = Bench(monkeypatch, tmp_path, certificate_rules=rules)

    async def main() -> None:
        await bench.serve()
        clients = await bench.guest(ALICE), await bench.guest(BOB), await bench.bound()
        found = [await bench.certificate(client) for client in clients]
        assert [one and one.principals for one in found] == [(b"root",), (b"web",), (b"own",)]
        bench.keyring.end()

    run(main())


def test_a_guest_is_never_asked(bench: Bench) -> None:
    """Neither for the PIN nor to confirm; that it is wanted is said in the log."""

    async def main() -> None:
        await bench.serve(pin=b"")
        alice = await bench.guest()
        assert await bench.keys(alice) == []
        assert bench.person.requests == []
        assert "other users, whom the agent is a service for, are asked nothing" in bench.reasons[-1]
        assert [refusal.next_step for refusal in bench.history][-1].startswith("give the PIN as root")
        # Nor is this held against the agent's own user.
        bench.person.answers.append(PIN)
        assert isinstance(await bench.sign(LOGIN), SignResponse)
        assert await bench.certificate(alice) is not None
        bench.keyring.end()

    run(main())


def test_a_guest_is_not_asked_to_confirm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: Machine
) -> None:
    cas = tuple(CaEntry(key, 3600, ("*",), confirm=True) for key in RULE.ca)
    bench = Bench(monkeypatch, tmp_path, cas=cas)

    async def main() -> None:
        await bench.serve()
        assert await bench.keys(await bench.guest()) == []
        assert bench.person.confirmations == []
        assert "needs a confirmation: the agent has no way to ask for it" in bench.reasons[-1]
        bench.keyring.end()

    run(main())


def test_no_keypad_is_lit_for_a_guest(bench: Bench) -> None:
    async def main() -> None:
        bench.first.flags |= TokenFlag.PROTECTED_AUTHENTICATION_PATH
        bench.second.flags |= TokenFlag.PROTECTED_AUTHENTICATION_PATH
        await bench.serve(pin=b"")
        logins = bench.slots.operations.count("login")
        assert await bench.keys(await bench.guest()) == []
        assert bench.slots.operations.count("login") == logins
        assert "nobody is asked for the PIN on its keypad for another user" in bench.reasons[-1]
        bench.keyring.end()

    run(main())


def test_no_notice_appears_where_a_guest_is() -> None:
    async def main() -> None:
        notices = TouchNotices({}, lambda: 60.0, Terminals(None))
        asker = Asker("ssh", os.getpid())
        for whose, begun in ((Requester.of_guest(ALICE, 1), 0), (NOBODY, 2)):
            requester.set(whose)
            with notices.plug_in(["token"], "key", asker):
                assert len(notices._tasks) == begun
            waiting = notices.waiting("token", "key", asker)
            assert isinstance(waiting, nullcontext) == (begun == 0)
        for task in notices._tasks:
            task.cancel()

    run(main())


def test_a_rule_of_the_ca_key_goes_by_the_guests_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: Machine
) -> None:
    cas = tuple(CaEntry(key, 3600, ("{user}",)) for key in RULE.ca)
    rules = (replace(FOR_ALL, principals=("{user}",)),)
    bench = Bench(monkeypatch, tmp_path, cas=cas, certificate_rules=rules)

    async def main() -> None:
        await bench.serve()
        assert await bench.certificate(await bench.guest()) is not None
        wrong = Config(cas=cas, certificate_rules=(replace(FOR_ALL, principals=("service",)),))
        bench.keyring.change_options(Options(provider_patterns=f"{tmp_path}/*", config=wrong))
        assert await bench.keys(await bench.guest()) == []
        assert "principal 'service' is not allowed for user alice" in bench.reasons[-1]
        bench.keyring.end()

    run(main())


def test_ten_certificates_a_minute_and_one_guest_takes_none_from_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: Machine
) -> None:
    rule = replace(FOR_ALL, lifetime=100, renew_before=99)
    bench = Bench(monkeypatch, tmp_path, certificate_rules=(rule,))
    monkeypatch.setattr("replug.agent.ca.rule_state.RuleState.is_due", lambda *_: True)

    async def main() -> None:
        # Each attempt is wanted again at once, so it would never end: one is made for each listing.
        async def once(state: Any, client: Client, host: Any) -> None:
            await bench.keyring.issuing._make(state, client, host)

        monkeypatch.setattr(bench.keyring.issuing, "_made", once)
        await bench.serve()
        alice, bob = await bench.guest(ALICE), await bench.guest(BOB)
        for _ in range(15):
            assert await bench.certificate(alice) is not None
        assert bench.signatures == 10
        assert "10 certificates were asked for within 60 s for user alice" in bench.reasons[-1]
        assert await bench.certificate(bob) is not None
        assert bench.signatures == 11
        bench.now += 61
        assert await bench.certificate(alice) is not None
        assert bench.signatures == 12
        bench.keyring.end()

    run(main())


def test_600_signatures_a_minute(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a line in a log that all share."""
    monkeypatch.setattr(bench.keyring.sign.__self__._allowance, "_clock", lambda: bench.now)  # type: ignore[attr-defined]

    async def main() -> None:
        await bench.serve()
        alice, bob = await bench.guest(ALICE), await bench.guest(BOB)
        hers, his = await bench.certificate(alice), await bench.certificate(bob)
        assert hers is not None
        assert his is not None
        request = SignRequest(hers.encode(), b"data", 0)
        replies = [isinstance(await bench.ask(request, alice), SignResponse) for _ in range(603)]
        assert replies == [True] * 600 + [False] * 3
        assert "600 signatures were asked for within 60 s for user alice" in bench.reasons[-1]
        reply = await bench.ask(SignRequest(his.encode(), b"data", 0), bob)
        assert isinstance(reply, SignResponse)
        bench.now += 61
        assert isinstance(await bench.ask(request, alice), SignResponse)
        bench.keyring.end()

    run(main())


def test_what_a_guest_left_is_dropped_when_it_has_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, machine: Machine
) -> None:
    """Of any number of guests in time only those stay whose certificates can be used."""

    async def main() -> None:
        import time

        await bench.serve()
        now = time.time()
        assert await bench.certificate(await bench.guest(ALICE)) is not None
        monkeypatch.setattr("replug.agent.ca.issuing.time.time", lambda: now + 700)
        assert await bench.certificate(await bench.guest(BOB)) is not None
        assert [state.guest for state in bench.keyring.issuing.states_of_guests()] == [Guest(BOB, "bob")]
        assert len(bench.keyring._software_keys._sealed) == 1
        bench.keyring.end()

    run(main())


def test_status_shows_what_each_guest_has(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = ControlRig(bench, tmp_path, capsys)
    monkeypatch.setenv("SSH_AUTH_SOCK", rig.socket)

    async def main() -> None:
        await bench.serve()
        await rig.control.start()
        assert "  none for SHA256:" in (await rig.replug("status"))[1]
        for uid in (ALICE, BOB):
            assert await bench.certificate(await bench.guest(uid)) is not None
        shown = " ".join((await rig.replug("status"))[1].split())
        await rig.control.close()
        for name in ("alice", "bob"):
            assert re.search(
                rf"serial \d+ for root, {name} at SHA256:\S+ by CA .* more, for user {name}", shown
            )
        bench.keyring.end()

    run(main())


def test_who_logs_in_where_no_rule_is_is_told_so(bench: Bench) -> None:
    async def main() -> None:
        await bench.serve()
        assert await bench.keys(await bench.guest(ALICE, Key())) == []
        assert "no [[certificate]] for user alice is for this host" in bench.reasons[-1]
        assert "/etc/ssh/ssh_known_hosts" in [refusal.next_step for refusal in bench.history][-1]
        bench.keyring.end()

    run(main())


def test_a_locked_agent_has_nothing_for_guests(bench: Bench) -> None:
    async def main() -> None:
        await bench.serve()
        alice = await bench.guest()
        certificate = await bench.certificate(alice)
        assert certificate is not None
        assert await bench.ask(Lock(b"secret")) == Success()
        assert await bench.keys(alice) == []
        assert await bench.ask(SignRequest(certificate.encode(), b"data", 0), alice) == Failure()
        assert await bench.ask(Unlock(b"secret"), alice) == Failure()
        assert await bench.ask(Unlock(b"secret")) == Success()
        assert await bench.keys(alice) == [certificate.encode()]
        bench.keyring.end()

    run(main())


def test_a_forged_session_bind_and_a_forwarded_one_get_nothing(bench: Bench) -> None:
    async def main() -> None:
        await bench.serve()
        certificate = await bench.certificate(await bench.guest())
        assert certificate is not None
        forged = await bench.guest(host=None)
        bind = replace(bind_of(SERVER, b"session"), session_id=b"another")
        assert await bench.ask(Extension(SESSION_BIND, bind.encode()), forged) == ExtensionFailure()
        forwarded = await bench.guest(host=None)
        bind = bind_of(SERVER, b"session", forwarding=True)
        assert await bench.ask(Extension(SESSION_BIND, bind.encode()), forwarded) == Success()
        for client in (forged, forwarded):
            assert await bench.keys(client) == []
            assert await bench.ask(SignRequest(certificate.encode(), b"data", 0), client) == Failure()
        bench.keyring.end()

    run(main())


def test_who_is_no_guest_yet_sees_nothing() -> None:
    """As long as the name is not known, nothing is meant for this client."""
    client = Client(Peer(os.getpid(), ALICE))
    assert not client.sees(KeyConstraints())
    assert not client.sees(KeyConstraints(guest=Guest(ALICE, "alice")))


def test_users_have_to_be_told_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: Machine
) -> None:
    bench = Bench(monkeypatch, tmp_path)
    monkeypatch.setattr(guests_module, "tells_users_apart", lambda: True)
    assert bench.keyring.why_no_guests() is None
    monkeypatch.setattr(guests_module, "tells_users_apart", lambda: False)
    why = bench.keyring.why_no_guests()
    assert isinstance(why, RequestRefusedError)
    assert "PrivateUsers=" in why.next_step
    monkeypatch.setattr(guests_module, "tells_users_apart", lambda: True)
    bench.keyring.change_options(Options(config=Config(certificate_rules=(RULE,))))
    why = bench.keyring.why_no_guests()
    assert isinstance(why, RequestRefusedError)
    assert why.reason == "connection from another user"


def test_a_directory_service_that_is_slow_holds_up_nobody_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        await bench.serve()
        reading, writing = os.pipe()
        real = pwd.getpwuid
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: os.read(reading, 1) and real(uid))
        listing = asyncio.create_task(bench.keys(await _unbound(bench)))
        await settle()
        assert not listing.done()
        assert LOGIN.blob in await bench.keys(bench.client)
        os.write(writing, b"x")
        assert await listing == []
        os.close(reading)
        os.close(writing)
        bench.keyring.end()

    run(main())


async def _unbound(bench: Bench) -> Client:
    return await bench.guest(ALICE, None)


def test_the_rule_says_who(machine: Machine) -> None:
    from replug.agent.ca.user_names import _name_and_rules

    def named(*users: str) -> bool:
        rule = CertificateRule(("SHA256:x",), ("*",), ("root",), users=users)
        return _name_and_rules(ALICE, [rule]) == ("alice", (rule,))

    assert named("alice")
    assert named("@admins")
    assert named("bob", "@nosuch", "alice")
    assert not named("bob")
    assert not named("@nosuch")
    assert not named("admins")
    assert not named("@alice")
