"""Requests and their answers: what is refused, why, and where a person can read the reason."""

from __future__ import annotations

import asyncio
import logging
import os
import time

import pytest
from doubles.agent_bench import LOGIN_KEY, AgentBench
from doubles.stand_ins import PIN, WRONG_PIN, Key, StandInToken, run

from replug.agent.control.refusals import RefusalHistory
from replug.agent.keyring import Keyring
from replug.protocol.constraints import (
    Confirm,
    Constraint,
    Lifetime,
)
from replug.protocol.decoding import Request
from replug.protocol.keys import fingerprint
from replug.protocol.messages import (
    AddIdentity,
    AddSmartcardKey,
    Extension,
    Failure,
    IdentitiesAnswer,
    ListedIdentity,
    Lock,
    RemoveAllIdentities,
    RemoveAllRsa1Identities,
    RemoveIdentity,
    RemoveSmartcardKey,
    RequestIdentities,
    SignRequest,
    SignResponse,
    Success,
    Unlock,
)
from replug.protocol.private_keys import Ed25519PrivateKey
from replug.token.requester import NOBODY
from replug.token.serving.served import ServedToken

UNKNOWN = Key("unknown")
SOFTWARE_KEY = Ed25519PrivateKey(UNKNOWN.public, bytes(32))  # type: ignore[arg-type]


# What is done.


def test_a_token_from_adding_to_removing(agent: AgentBench) -> None:
    async def main() -> None:
        assert await agent.ask(RequestIdentities()) == IdentitiesAnswer(())
        assert await agent.add() == Success()
        assert await agent.ask(RequestIdentities()) == IdentitiesAnswer(
            (ListedIdentity(LOGIN_KEY.blob, b"login"),)
        )
        assert isinstance(await agent.sign(LOGIN_KEY), SignResponse)
        assert await agent.ask(RemoveIdentity(LOGIN_KEY.blob)) == Success()
        assert await agent.listed() == []
        assert await agent.add() == Success()
        assert await agent.listed() == ["login"]
        assert await agent.remove() == Success()
        assert await agent.listed() == []
        assert agent.reasons == []

    run(main())


@pytest.mark.parametrize("request_", [RemoveAllIdentities(), RemoveAllRsa1Identities()])
def test_removing_all(agent: AgentBench, request_: Request) -> None:
    async def main() -> None:
        await agent.add()
        assert await agent.ask(request_) == Success()
        assert await agent.listed() == []
        assert agent.slots.alive == []
        # Also where there is nothing.
        assert await agent.ask(request_) == Success()

    run(main())


def test_listing_asks_no_token(agent: AgentBench) -> None:
    async def main() -> None:
        await agent.add()
        before = list(agent.slots.calls)
        assert await agent.listed() == ["login"]
        reply = agent.dispatcher.answer(agent.client, bytearray(RequestIdentities().encode()))
        assert isinstance(reply, bytes)
        assert agent.slots.calls == before

    run(main())


def test_a_signature_is_a_log_line(agent: AgentBench, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        await agent.add()
        await agent.sign(LOGIN_KEY)

    with caplog.at_level(logging.INFO, "replug"):
        run(main())
    [signed] = [vars(record) for record in caplog.records if record.getMessage() == "signed"]
    assert signed["key"] == fingerprint(LOGIN_KEY.blob)
    assert signed["token"] == 'token "work" (serial 1)'
    assert signed["program"].endswith(f"(pid {os.getpid()})")
    assert signed["duration_ms"] >= 0


def test_adding_without_a_pin(agent: AgentBench) -> None:
    async def main() -> None:
        assert await agent.add(pin=b"") == Success()
        assert agent.slots.logins == []
        assert isinstance(await agent.sign(LOGIN_KEY), SignResponse)
        [asked] = agent.person.requests
        assert asked.asker.program.endswith(f"(pid {os.getpid()})")

    run(main())


# What is refused.

REFUSALS: dict[str, tuple[Request | bytes, str]] = {
    **{
        f"message {number}": (bytes([number]), f"unexpected message type {number}")
        for number in (0, 1, 2, 3, 5, 6, 7, 8, 12, 14, 24, 28, 29, 30, 255)
    },
    "a truncated request": (b"\x0d\0\0\0\5abc", "truncated: a string needs 5 bytes, 3 remain"),
    "a request with something after it": (b"\x0bx", "1 bytes too many"),
    "an unknown key": (
        SignRequest(UNKNOWN.blob, b"data", 0),
        f"key {fingerprint(UNKNOWN.blob)} is not in the agent",
    ),
    "bytes that are no key": (
        SignRequest(b"no key", b"data", 0),
        f"key {fingerprint(b'no key')} is not in the agent",
    ),
    "removing an unknown key": (
        RemoveIdentity(UNKNOWN.blob),
        f"key {fingerprint(UNKNOWN.blob)} is not in the agent",
    ),
    "a software key whose halves do not belong together": (
        AddIdentity(SOFTWARE_KEY, b"comment"),
        "the public half of the ssh-ed25519 key is another one's",
    ),
    "removing an unknown provider": (
        RemoveSmartcardKey(b"/nonexistent/x.so", b""),
        "/nonexistent/x.so was not added",
    ),
    "a provider's name that is no text": (
        AddSmartcardKey(b"/lib/\xff.so", PIN),
        "the provider's name is not UTF-8",
    ),
    "a provider's name that is too long": (
        AddSmartcardKey(b"/" + 4096 * b"x", PIN),
        "the provider's name is longer than 4096 bytes",
    ),
    "a provider's name with too long a part": (
        AddSmartcardKey(b"/" + 256 * b"x", PIN),
        f'"/{159 * "x"}..." (257 characters): File name too long',
    ),
    "a provider's name with too many parts": (
        AddSmartcardKey(b"/usr/.." * 33, PIN),
        "the provider's name has more than 64 parts",
    ),
    "no provider's name": (AddSmartcardKey(b"", PIN), "the provider has no name"),
    "a module that is not there": (
        AddSmartcardKey(b"/nonexistent/module.so", PIN),
        "/nonexistent/module.so does not exist",
    ),
    "a URI that is none": (
        AddSmartcardKey(b"pkcs11:slot-id=1", PIN),
        "not a PKCS#11 URI: attribute slot-id is not supported",
    ),
    "removing a URI that is none": (
        RemoveSmartcardKey(b"pkcs11:slot-id=1", PIN),
        "not a PKCS#11 URI: attribute slot-id is not supported",
    ),
    "locking with nothing": (Lock(b""), "lock: the passphrase is empty"),
    "unlocking what is not locked": (Unlock(b"secret"), "unlock: not locked"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_failure_on_the_wire_and_a_reason_in_log_and_history(
    agent: AgentBench, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    request, reason = REFUSALS[case]
    named = {0x0D: "SignRequest", 0x0B: "RequestIdentities"}
    name = type(request).__name__
    if isinstance(request, bytes):
        name = named.get(request[0], f"message {request[0]}")

    async def main() -> None:
        before = time.time()
        assert await agent.ask(request) == Failure()
        [refusal] = agent.history
        assert refusal.reason == reason
        assert before <= refusal.when <= time.time()
        assert refusal.request == name
        assert refusal.program.endswith(f"(pid {os.getpid()})")
        # And the agent goes on.
        assert await agent.add() == Success()

    run(main())
    [line] = [record for record in caplog.records if record.getMessage() == "refused"]
    assert vars(line)["why"] == reason
    assert agent.slots.logins == [PIN]


def test_flags_that_nobody_knows_are_refused(agent: AgentBench) -> None:
    async def main() -> None:
        agent.slots.tokens = [StandInToken(rsa := Key("rsa", "rsa"))]
        await agent.add()
        assert await agent.ask(SignRequest(rsa.blob, b"data", 8)) == Failure()
        assert agent.reasons == ["unknown signature flags 0x8"]

    run(main())


def test_what_a_token_refuses_has_its_next_step(agent: AgentBench) -> None:
    async def main() -> None:
        assert await agent.add(pin=WRONG_PIN) == Failure()
        [refusal] = agent.history
        assert (refusal.reason, refusal.next_step) == (
            'token "work" (serial 1): the PIN is wrong',
            "one try was spent; run ssh-add -s again with the right PIN",
        )

    run(main())


def test_an_extension_we_do_not_have_is_failure_and_no_event(agent: AgentBench) -> None:
    """Clients try what agents may have; if each try were noted, nothing else would be found among them."""

    async def main() -> None:
        assert await agent.ask(Extension("unknown@example.com", b"")) == Failure()
        assert agent.reasons == []

    run(main())


# What nobody thought of.


def test_a_handler_that_fails_unexpectedly_is_a_failure_and_no_more(
    agent: AgentBench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_keyring: Keyring) -> None:
        raise ZeroDivisionError("secret detail")

    async def main() -> None:
        monkeypatch.setattr(Keyring, "remove_all", fail)
        assert await agent.ask(RemoveAllIdentities()) == Failure()
        assert agent.reasons == ["unexpected ZeroDivisionError"]
        assert await agent.add() == Success()

    run(main())
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError


def test_a_handler_that_fails_unexpectedly_later(agent: AgentBench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_arguments: object, **_named: object) -> bytes:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async def main() -> None:
        await agent.add()
        with monkeypatch.context() as patch:
            patch.setattr(ServedToken, "sign", fail)
            assert await agent.sign(LOGIN_KEY) == Failure()
        assert agent.reasons == ["unexpected ZeroDivisionError"]
        assert isinstance(await agent.sign(LOGIN_KEY), SignResponse)

    run(main())


def test_no_pin_is_in_the_log_or_the_history(agent: AgentBench, caplog: pytest.LogCaptureFixture) -> None:
    secret = b"correct-horse-battery"

    async def main() -> None:
        await agent.add(pin=secret)
        await agent.add(provider=agent.uri("token=work", f"&pin-value={secret.decode()}"), pin=b"")
        await agent.add(provider=agent.uri("token=absent", f"&pin-value={secret.decode()}"), pin=b"")
        await agent.add(provider=agent.uri("token=work", f"&pin-value={secret.decode()}%"), pin=b"")
        await agent.ask(AddSmartcardKey(str(agent.module).encode() + b"/", secret, (Confirm(),)))
        await agent.ask(Lock(secret))
        await agent.ask(Unlock(secret + b"x"))

    with caplog.at_level(logging.DEBUG, "replug"):
        run(main())
    assert len(agent.reasons) == 6
    told = repr(list(agent.history)) + repr([vars(record) for record in caplog.records])
    assert secret.decode() not in told


def test_the_history_keeps_the_last_refusals() -> None:
    history = RefusalHistory()
    for number in range(25):
        history.add(NOBODY, "SignRequest", "ssh", f"reason {number}", "", "")
    assert [refusal.reason for refusal in history] == [f"reason {number}" for number in range(5, 25)]


def test_the_history_takes_no_more_of_a_reason_than_a_person_would_read() -> None:
    history = RefusalHistory()
    history.add(NOBODY, "SignRequest", "ssh", "x" * 100_000, "", "")
    [refusal] = history
    assert refusal.reason == "x" * 500


def test_a_constraint_we_keep(agent: AgentBench) -> None:
    constraint: Constraint = Lifetime(3600)

    async def main() -> None:
        assert await agent.add(constraint) == Success()
        expiry = agent.keyring.identities.next_expiry()
        assert expiry is not None
        assert 3590 < expiry <= 3600

    run(main())
