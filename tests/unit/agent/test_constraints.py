"""What was said of keys when they were added, and how it holds: persons asked, destinations, certificates."""

from __future__ import annotations

import asyncio
import logging

import pytest
from doubles.agent_bench import LOGIN_KEY, WORK_KEY, AgentBench
from doubles.private_keys import ed25519_key, message, rsa_key
from doubles.session_hosts import HERE, bind_of, certificate, hop, leave
from doubles.stand_ins import PIN, Key, run, settle

from replug.agent.clients.client import Client
from replug.protocol.constraints import (
    AssociatedCerts,
    Confirm,
    Constraint,
    Lifetime,
    RestrictDestination,
    SkProvider,
)
from replug.protocol.extensions import QUERY, SESSION_BIND, QueryResponse, SessionBind
from replug.protocol.keys import fingerprint
from replug.protocol.messages import (
    Extension,
    ExtensionFailure,
    ExtensionResponse,
    Failure,
    IdentitiesAnswer,
    Lock,
    RemoveAllIdentities,
    RemoveIdentity,
    RequestIdentities,
    SignRequest,
    SignResponse,
    Success,
    Unlock,
)
from replug.protocol.private_keys import PrivateKey
from replug.protocol.signatures import verify
from replug.protocol.signed_data import SshSignature
from replug.protocol.userauth import UserauthRequest

SERVER, BASTION = Key(), Key()
TO_SERVER = RestrictDestination((leave(HERE, hop("server", SERVER, user="alice")),))
KEY = ed25519_key()


@pytest.fixture
def agent(two: AgentBench) -> AgentBench:
    return two


async def add(
    agent: AgentBench,
    key: PrivateKey,
    *constraints: Constraint,
    comment: bytes = b"file",
    client: Client | None = None,
) -> object:
    return await agent.ask(bytes(message(key, *constraints, comment=comment)), client)


async def listed(agent: AgentBench, client: Client) -> list[bytes]:
    answer = await agent.ask(RequestIdentities(), client)
    assert isinstance(answer, IdentitiesAnswer)
    return [identity.key_blob for identity in answer.identities]


async def bound(agent: AgentBench, *binds: SessionBind) -> Client:
    """A client that speaks for these sessions."""
    client = agent.new_client()
    for bind in binds:
        assert await agent.ask(Extension(SESSION_BIND, bind.encode()), client) == Success()
    return client


def login(key_blob: bytes, algorithm: str, user: str = "alice", session: bytes = b"s") -> SignRequest:
    return SignRequest(key_blob, UserauthRequest(session, user, algorithm, key_blob).encode(), 0)


# Software keys beside a token's.


def test_software_keys_are_listed_among_the_tokens_in_the_order_of_adding(agent: AgentBench) -> None:
    async def main() -> None:
        other = rsa_key()
        assert await add(agent, KEY, comment=b"first") == Success()
        await agent.add()
        await add(agent, other, comment=b"last")
        assert await agent.listed() == ["first", "work key", "home key", "last"]
        await add(agent, KEY, comment=b"renamed")
        assert await agent.listed() == ["renamed", "work key", "home key", "last"]
        reply = await agent.ask(SignRequest(KEY.blob, b"data", 0))
        assert isinstance(reply, SignResponse)
        verify(KEY.public, reply.signature, b"data")
        assert await agent.ask(RemoveIdentity(KEY.blob)) == Success()
        assert await agent.listed() == ["work key", "home key", "last"]
        assert await agent.ask(SignRequest(KEY.blob, b"data", 0)) == Failure()
        assert await agent.ask(RemoveIdentity(KEY.blob)) == Failure()
        assert await agent.ask(RemoveAllIdentities()) == Success()
        assert await agent.listed() == []

    run(main())


def test_a_key_that_is_no_authenticators_with_a_provider_for_those(agent: AgentBench) -> None:
    async def main() -> None:
        assert await add(agent, KEY, SkProvider(b"/usr/lib/sk.so")) == Failure()
        assert agent.reasons == ["a provider for FIDO keys was named, and the key is none"]
        assert not any(one._process for one in agent.keyring._software_keys._processes())

    run(main())


def test_the_request_is_wiped_whatever_comes_of_it(agent: AgentBench) -> None:
    async def main() -> None:
        for request in (message(KEY), message(KEY)[:-1], message(KEY) + b"\x63"):
            reply = agent.dispatcher.answer(agent.client, request)
            if not isinstance(reply, bytes):
                await reply
            assert not any(request)
        agent.keyring.remove_all()

    run(main())


# Asking a person.


def test_a_person_is_asked_before_each_signature(agent: AgentBench) -> None:
    async def main() -> None:
        await agent.add(Confirm(), provider=agent.uri("token=work"))
        await add(agent, KEY, Confirm(), comment=b"my key")
        assert isinstance(await agent.sign(WORK_KEY), SignResponse)
        assert isinstance(await agent.ask(SignRequest(KEY.blob, b"data", 0)), SignResponse)
        assert [asked.key for asked in agent.person.confirmations] == ["work key", "my key"]
        assert agent.person.confirmations[1].fingerprint == fingerprint(KEY.blob)
        agent.person.agrees = False
        calls = len(agent.slots.calls)
        assert await agent.sign(WORK_KEY) == Failure()
        assert await agent.ask(SignRequest(KEY.blob, b"data", 0)) == Failure()
        assert len(agent.slots.calls) == calls
        assert agent.reasons[0] == (f"the user declined the use of key {fingerprint(WORK_KEY.blob)}")
        agent.keyring.remove_all()

    run(main())


def test_one_question_at_a_time_and_none_for_a_client_that_is_gone(agent: AgentBench) -> None:
    async def main() -> None:
        await add(agent, KEY, Confirm())
        agent.person.may_answer = (answered := asyncio.Event()).wait()
        first = asyncio.create_task(agent.ask(SignRequest(KEY.blob, b"1", 0)))
        await agent.person.asked.wait()
        second = asyncio.create_task(agent.ask(SignRequest(KEY.blob, b"2", 0)))
        await settle()
        assert len(agent.person.confirmations) == 1
        second.cancel()
        answered.set()
        assert isinstance(await first, SignResponse)
        await asyncio.gather(second, return_exceptions=True)
        assert len(agent.person.confirmations) == 1
        agent.keyring.remove_all()

    run(main())


@pytest.mark.parametrize("meanwhile", ["removed", "restricted", "expired"])
def test_what_happens_to_a_key_while_a_person_is_asked_counts(
    agent: AgentBench, meanwhile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        await agent.add(Confirm(), Lifetime(1000), provider=agent.uri("token=work"))
        agent.person.may_answer = (answered := asyncio.Event()).wait()
        signing = asyncio.create_task(agent.sign(WORK_KEY))
        await agent.person.asked.wait()
        match meanwhile:
            case "removed":
                assert await agent.ask(RemoveIdentity(WORK_KEY.blob)) == Success()
            case "restricted":
                assert await agent.add(TO_SERVER, provider=agent.uri("token=work")) == Success()
            case "expired":  # while the machine slept, so that the timer is late
                later = agent.keyring.identities.now() + 1000
                agent.keyring.changes.clock = lambda: later
        answered.set()
        assert await signing == Failure()
        assert "sign" not in agent.slots.operations
        agent.keyring.remove_all()

    run(main())


def test_terms_are_replaced_when_a_key_is_added_again(agent: AgentBench) -> None:
    async def main() -> None:
        await add(agent, KEY, Confirm(), Lifetime(60))
        assert agent.keyring.identities.next_expiry() is not None
        await add(agent, KEY)
        assert agent.keyring.identities.next_expiry() is None
        assert isinstance(await agent.ask(SignRequest(KEY.blob, b"data", 0)), SignResponse)
        await agent.add(Confirm(), provider=agent.uri("token=work"))
        await agent.add(provider=agent.uri("token=work"))
        assert isinstance(await agent.sign(WORK_KEY), SignResponse)
        assert agent.person.confirmations == []
        agent.keyring.remove_all()

    run(main())


def test_terms_of_a_token_survive_its_absence(agent: AgentBench) -> None:
    async def main() -> None:
        await agent.add(Confirm(), provider=agent.uri("token=work"))
        [module] = agent.keyring.modules()
        there, agent.slots.tokens = agent.slots.tokens, []
        await module.look()
        assert await agent.listed() == []
        agent.slots.tokens = there
        await module.look()
        assert await agent.listed() == ["work key"]
        assert isinstance(await agent.sign(WORK_KEY), SignResponse)
        assert len(agent.person.confirmations) == 1

    run(main())


# Destinations.


def test_a_restricted_key_is_shown_and_used_where_it_may_be(agent: AgentBench) -> None:
    async def main() -> None:
        await agent.add(TO_SERVER, provider=agent.uri("token=work"))
        await add(agent, KEY, TO_SERVER)
        both = [WORK_KEY.blob, KEY.blob]
        for key in both:
            assert await agent.ask(login(key, "ssh-ed25519")) == Failure()
        assert await listed(agent, agent.client) == both
        here = await bound(agent, bind_of(SERVER, b"s"))
        assert await listed(agent, here) == both
        for key in both:
            assert isinstance(await agent.ask(login(key, "ssh-ed25519"), here), SignResponse)
            assert await agent.ask(login(key, "ssh-ed25519", user="root"), here) == Failure()
            assert await agent.ask(SignRequest(key, b"data", 0), here) == Failure()
        elsewhere = await bound(agent, bind_of(BASTION, b"s"))
        assert await listed(agent, elsewhere) == []
        for key in both:
            assert await agent.ask(login(key, "ssh-ed25519"), elsewhere) == Failure()
            assert await agent.ask(RemoveIdentity(key), elsewhere) == Failure()
        assert await listed(agent, agent.client) == both
        agent.keyring.remove_all()

    run(main())


def test_what_is_hidden_cannot_be_loosened(agent: AgentBench) -> None:
    async def main() -> None:
        await add(agent, KEY, TO_SERVER)
        elsewhere = await bound(agent, bind_of(BASTION, b"s"))
        assert await add(agent, KEY, client=elsewhere) == Failure()
        assert agent.reasons == [f"key {fingerprint(KEY.blob)} is there already, for other destinations"]
        assert await listed(agent, elsewhere) == []
        # All removes all, as with ssh-agent: that harms nobody's secrets.
        assert await agent.ask(RemoveAllIdentities(), elsewhere) == Success()
        assert await agent.listed() == []

    run(main())


def test_the_newest_terms_hold_however_a_token_was_named(agent: AgentBench) -> None:
    """Who may not use it by them does not get it by the older ones."""

    async def main() -> None:
        await agent.add(provider=agent.uri("token=work"))
        await agent.add(TO_SERVER, Confirm(), provider=agent.uri("token=work;object=work%20key"))
        assert await agent.listed() == ["work key"]
        elsewhere = await bound(agent, bind_of(BASTION, b"s"))
        assert await listed(agent, elsewhere) == []
        assert await agent.ask(login(WORK_KEY.blob, "ssh-ed25519"), elsewhere) == Failure()
        here = await bound(agent, bind_of(SERVER, b"s"))
        assert isinstance(await agent.ask(login(WORK_KEY.blob, "ssh-ed25519"), here), SignResponse)
        assert len(agent.person.confirmations) == 1

    run(main())


def test_a_person_is_told_what_is_signed(agent: AgentBench, caplog: pytest.LogCaptureFixture) -> None:
    """The same words in the question and in the log; the name is the constraint's."""

    async def main() -> None:
        await add(agent, KEY, TO_SERVER, Confirm())
        here = await bound(agent, bind_of(SERVER, b"s"))
        await agent.ask(login(KEY.blob, "ssh-ed25519"), here)
        await add(agent, KEY, Confirm())
        await agent.ask(SignRequest(KEY.blob, bytes(100), 0), here)
        agent.keyring.remove_all()

    with caplog.at_level(logging.INFO):
        run(main())
    asked = [question.asker.purpose for question in agent.person.confirmations]
    assert asked == [
        (
            f"login at the host with key {fingerprint(SERVER.blob)} "
            "(not in known_hosts; the key's constraints call it server)",
            "as alice",
        ),
        ("data of 100 bytes that is no login, certificate or signature of a known form",),
    ]
    signed = [record.__dict__["purpose"] for record in caplog.records if record.message == "signed"]
    assert signed == [", ".join(lines) for lines in asked]


def test_a_forwarded_login_and_a_signature_for_the_hosts_root_differ(agent: AgentBench) -> None:
    """The attack: over `ssh -A`, `ssh-keygen -Y sign -n git` on the host looked like a login there."""

    async def main() -> None:
        await add(agent, KEY, Confirm())
        git = SshSignature(b"git", "sha512", bytes(64)).encode()
        there = await bound(agent, bind_of(BASTION, b"f", forwarding=True))
        assert isinstance(await agent.ask(SignRequest(KEY.blob, git, 0), there), SignResponse)
        beyond = await bound(agent, bind_of(BASTION, b"f", forwarding=True), bind_of(SERVER, b"s"))
        assert isinstance(await agent.ask(login(KEY.blob, "ssh-ed25519"), beyond), SignResponse)
        agent.keyring.remove_all()

    run(main())
    (first, *signature), (second, *logged_in) = (
        [line.split(" (")[0] for line in question.asker.purpose] for question in agent.person.confirmations
    )
    over = [f"for a program on the host with key {fingerprint(BASTION.blob)}"]
    assert (first, signature) == ("SSHSIG signature, not a login", [*over, "namespace git"])
    assert (second, logged_in) == (
        f"login at the host with key {fingerprint(SERVER.blob)}",
        [*over, "as alice"],
    )


def test_a_refused_signature_is_remembered_with_its_purpose(agent: AgentBench) -> None:
    async def main() -> None:
        await add(agent, KEY, TO_SERVER)
        assert await agent.ask(login(KEY.blob, "ssh-ed25519"), await bound(agent)) == Failure()
        agent.keyring.remove_all()

    run(main())
    [refusal] = agent.history
    assert refusal.purpose == "login at an UNKNOWN host: the connection is bound to no session, as alice"


# session-bind, and the other extension.


def test_a_bind_that_does_not_hold_marks_the_connection_for_good(agent: AgentBench) -> None:
    async def main() -> None:
        await add(agent, KEY, TO_SERVER)
        client, good = agent.new_client(), bind_of(SERVER, b"s", forwarding=True)
        bad = SessionBind(SERVER.blob, b"s", bind_of(BASTION, b"s").signature, False)
        for contents in (b"", bad.encode(), good.encode() + b"\0"):
            assert await agent.ask(Extension(SESSION_BIND, contents), client) == ExtensionFailure()
            assert client.remote
            assert await listed(agent, client) == []
        assert all(reason.startswith("session-bind: ") for reason in agent.reasons)
        # A later one that holds changes nothing (in ssh-agent it does): a host whose key was not verified
        # can make one.
        assert await agent.ask(Extension(SESSION_BIND, bind_of(SERVER, b"s").encode()), client) == Success()
        assert await listed(agent, client) == []
        agent.keyring.remove_all()

    run(main())


def test_binds_are_taken_while_locked(agent: AgentBench) -> None:
    async def main() -> None:
        await add(agent, KEY, TO_SERVER)
        assert await agent.ask(Lock(b"secret")) == Success()
        here = await bound(agent, bind_of(SERVER, b"s"))
        assert await listed(agent, here) == []
        assert await agent.ask(Extension(QUERY, b"")) == Failure()
        assert await agent.ask(Unlock(b"secret")) == Success()
        assert isinstance(await agent.ask(login(KEY.blob, "ssh-ed25519"), here), SignResponse)
        agent.keyring.remove_all()

    run(main())


def test_what_extensions_there_are(agent: AgentBench) -> None:
    async def main() -> None:
        answer = await agent.ask(Extension(QUERY, b""))
        assert answer == ExtensionResponse(QUERY, QueryResponse((SESSION_BIND,)).encode())

    run(main())


# Certificates for a token's keys.


def test_certificates_come_before_their_keys_or_alone(agent: AgentBench) -> None:
    async def main() -> None:
        work = agent.uri("token=work")
        cert, other = certificate(WORK_KEY, Key(), "alice"), certificate(LOGIN_KEY, Key(), "alice")
        assert (
            await agent.add(AssociatedCerts(False, (b"junk", other, cert)), Confirm(), provider=work)
            == Success()
        )
        assert await listed(agent, agent.client) == [cert, WORK_KEY.blob]
        assert await agent.listed() == ["work key", "work key"]
        reply = await agent.ask(SignRequest(cert, b"data", 0))
        assert isinstance(reply, SignResponse)
        verify(WORK_KEY.public, reply.signature, b"data")
        assert len(agent.person.confirmations) == 1
        assert await agent.ask(RemoveIdentity(cert)) == Success()
        assert await listed(agent, agent.client) == [WORK_KEY.blob]
        assert await agent.add(AssociatedCerts(True, (cert,)), provider=work) == Success()
        assert await listed(agent, agent.client) == [cert]

    run(main())


def test_certificates_for_none_of_the_keys(agent: AgentBench) -> None:
    async def main() -> None:
        other = certificate(LOGIN_KEY, Key(), "alice")
        assert await agent.add(AssociatedCerts(True, (other,))) == Failure()
        assert "none of the certificates is for a key of this provider" in agent.reasons[0]
        assert await agent.listed() == []

    run(main())


# The lock seals.


def test_a_locked_agent_holds_nothing_to_use_and_goes_on_after_unlocking(agent: AgentBench) -> None:
    async def main() -> None:
        await agent.add(provider=agent.uri("token=work"))
        await add(agent, KEY)
        pin = agent.remembered(agent.slots.tokens[0])
        assert pin is not None
        assert pin.value == PIN
        logins = len(agent.slots.logins)
        assert await agent.ask(Lock(b"secret")) == Success()
        assert pin.value == b""
        assert not any(one._process for one in agent.keyring._software_keys._processes())
        assert not any(process.ready for process in agent.slots.processes if process.alive)
        assert await agent.ask(Unlock(b"wrong")) == Failure()
        assert await agent.ask(Unlock(b"secret")) == Success()
        assert pin.value == PIN
        assert isinstance(await agent.sign(WORK_KEY), SignResponse)
        assert isinstance(await agent.ask(SignRequest(KEY.blob, b"data", 0)), SignResponse)
        assert agent.person.requests == []
        assert agent.slots.logins[logins:] == [PIN]
        agent.keyring.remove_all()

    run(main())


def test_a_pin_typed_into_a_locked_agent_stays_nowhere(agent: AgentBench) -> None:
    """The lock comes while a login is under way."""

    async def main() -> None:
        gate = agent.slots.hold_next("login")
        adding = asyncio.create_task(agent.add(provider=agent.uri("token=work")))
        await gate.entered.wait()
        assert await agent.ask(Lock(b"secret")) == Success()
        gate.opened.set()
        assert await adding == Failure()
        assert agent.remembered(agent.slots.tokens[0]) is None

    run(main())


def test_a_prompt_is_taken_away_when_the_agent_is_locked(agent: AgentBench) -> None:
    async def main() -> None:
        await agent.add(provider=agent.uri("token=work"), pin=b"")
        agent.person.may_answer = asyncio.Event().wait()
        signing = asyncio.create_task(agent.sign(WORK_KEY))
        await agent.person.asked.wait()
        assert await agent.ask(Lock(b"secret")) == Success()
        assert await signing == Failure()
        assert agent.slots.logins == []

    run(main())


def test_a_software_key_that_arrives_while_the_agent_is_locked(agent: AgentBench) -> None:
    async def main() -> None:
        adding = asyncio.create_task(add(agent, KEY))  # type: ignore[arg-type]
        await settle()
        assert await agent.ask(Lock(b"secret")) == Success()
        first = await adding
        await agent.ask(Unlock(b"secret"))
        assert await agent.listed() == (["file"] if first == Success() else [])
        agent.keyring.remove_all()

    run(main())


def test_forgotten_while_locked_is_forgotten(agent: AgentBench) -> None:
    async def main() -> None:
        await agent.add(provider=agent.uri("token=work"))
        await agent.ask(Lock(b"secret"))
        assert agent.keyring.forget_pins() == 1
        await agent.ask(Unlock(b"secret"))
        assert agent.remembered(agent.slots.tokens[0]) is None

    run(main())


def test_a_key_that_is_to_be_confirmed_meanwhile_is_not_signed_with_unasked(agent: AgentBench) -> None:
    """It is added again with -c while the PIN for another request is being entered."""

    async def main() -> None:
        answered = asyncio.Event()
        agent.person.answers.append(PIN)
        agent.person.may_answer = answered.wait()
        await agent.add(pin=b"")
        waiting = asyncio.create_task(agent.sign(WORK_KEY))
        await agent.person.asked.wait()
        assert await agent.add(Confirm(), pin=b"") == Success()
        answered.set()
        assert await waiting == Failure()
        assert agent.reasons == ["the key was added again meanwhile, to be confirmed"]

    run(main())


@pytest.mark.parametrize("event", ["locked", "forgotten"])
def test_a_pin_that_waits_for_its_module_is_withdrawn(agent: AgentBench, event: str) -> None:
    """It was given with `ssh-add -s`, and the module takes its time."""

    async def main() -> None:
        gate = agent.slots.hold_next("scan")
        adding = asyncio.create_task(agent.add(provider=agent.uri("token=work")))
        await gate.entered.wait()
        (pin,) = agent.keyring.pins._in_use
        assert pin.value == PIN
        if event == "locked":
            assert await agent.ask(Lock(b"secret")) == Success()
            assert not any(pin.value)
        else:
            agent.keyring.forget_pins()
        gate.opened.set()
        assert await adding == (Failure() if event == "locked" else Success())
        assert agent.slots.logins == ([] if event == "locked" else [PIN])
        assert agent.keyring.pins._pins == {}

    run(main())


@pytest.mark.parametrize("event", ["locked", "forgotten"])
def test_no_token_is_ready_whose_login_ends_with_what_is_under_way(agent: AgentBench, event: str) -> None:
    async def main() -> None:
        await agent.add(provider=agent.uri("token=work"))
        for process in agent.slots.processes:
            process.kill()
        gate = agent.slots.hold_next("login")
        signing = asyncio.create_task(agent.sign(WORK_KEY))
        await gate.entered.wait()
        if event == "locked":
            assert await agent.ask(Lock(b"secret")) == Success()
        else:
            agent.keyring.forget_pins()
        gate.opened.set()
        await signing
        assert [token.state for token in agent.keyring.tokens()] == ["present"]

    run(main())
