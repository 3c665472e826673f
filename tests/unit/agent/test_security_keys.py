"""FIDO keys in the agent: which are taken, with which library, and what becomes of them and their PINs."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doubles.agent_bench import LOGIN_KEY, AgentBench
from doubles.private_keys import message
from doubles.session_hosts import certificate
from doubles.sk_helper import StandInHelper
from doubles.stand_ins import Key, Person, StandInToken, run, settle

from replug.agent.config.model import Config
from replug.agent.config.options import Options
from replug.agent.keys.security_keys import SecurityKeys
from replug.protocol.certificates import Certificate
from replug.protocol.constraints import Constraint, Lifetime, SkProvider
from replug.protocol.decoding import Response
from replug.protocol.extensions import SESSION_BIND
from replug.protocol.keys import SkPublicKey
from replug.protocol.messages import (
    Extension,
    Failure,
    Lock,
    RemoveAllIdentities,
    RemoveIdentity,
    SignRequest,
    SignResponse,
    Success,
    Unlock,
)
from replug.protocol.private_keys import SkPrivateKey
from replug.protocol.signatures import verify_any
from replug.token.pins.lifetime import ForgetOn

PIN = b"2468"
KEY = Key()
INTERNAL = SkProvider(b"internal")


def sk_key(application: str = "ssh:", *, certified: bool = False) -> SkPrivateKey:
    public = SkPublicKey(KEY.public, application)  # type: ignore[arg-type]
    body = Certificate.decode(certificate(Key(), Key(), "alice"))
    its = replace(body, key=public) if certified else None
    return SkPrivateKey(public, 1, b"the handle", b"", certificate=its)


SK = sk_key()


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AgentBench:
    return bench(monkeypatch, tmp_path)


def bench(monkeypatch: pytest.MonkeyPatch, folder: Path, **options: Any) -> AgentBench:
    """An agent with one authenticator, which has KEY."""
    chosen = Options(provider_patterns=f"{folder}/*", **options)
    agent = AgentBench(monkeypatch, folder, StandInToken(LOGIN_KEY), person=Person(PIN), options=chosen)
    agent.authenticators.helper = StandInHelper(KEY)  # type: ignore[assignment]
    return agent


def helper(agent: AgentBench) -> StandInHelper:
    its: Any = agent.authenticators.helper
    return its  # type: ignore[no-any-return]


async def add(agent: AgentBench, key: SkPrivateKey = SK, *constraints: Constraint, **how: Any) -> Response:
    return await agent.ask(bytes(message(key, *(constraints or (INTERNAL,)))), **how)


async def sign(agent: AgentBench, key: SkPrivateKey = SK) -> Response:
    """A signature has to be right."""
    reply = await agent.ask(SignRequest(key.blob, b"data", 0))
    if isinstance(reply, SignResponse):
        verify_any(key.public, reply.signature, b"data")
    return reply


# Which library.


def test_a_key_without_a_library_is_refused(agent: AgentBench) -> None:
    async def main() -> None:
        assert await add(agent, SK, Lifetime(60)) == Failure()
        assert agent.reasons == ["no library was named that speaks to the security key of this key"]
        assert await agent.listed() == []

    run(main())


def test_the_list_of_allowed_libraries_is_for_real_paths(agent: AgentBench, tmp_path: Path) -> None:
    async def main() -> None:
        link, missing = tmp_path / "sk.so", tmp_path / "missing.so"
        link.symlink_to("/bin/true")
        allowed = tmp_path / "real.so"
        allowed.touch()
        for path in (link, missing, Path("/etc/../bin/true")):
            assert await add(agent, SK, SkProvider(str(path).encode())) == Failure()
        assert [reason.partition(" ")[2] for reason in agent.reasons] == [
            f"is not in the list of allowed modules ({tmp_path}/*)",
            "does not exist",
            f"is not in the list of allowed modules ({tmp_path}/*)",
        ]
        assert await add(agent, SK, SkProvider(str(allowed).encode())) == Success()
        assert [held.provider for held in agent.keyring.identities.security_keys()] == [str(allowed)]
        assert await add(agent, SK, SkProvider(b"INTERNAL")) == Success()
        assert [held.place for held in agent.keyring.identities.security_keys()] == [
            "security key (internal)"
        ]

    run(main())


def test_a_library_whose_path_is_not_utf8(agent: AgentBench, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9\n.so"
    Path(os.fsdecode(path)).touch()

    async def main() -> None:
        assert await add(agent, SK, SkProvider(path)) == Success()
        assert isinstance(await sign(agent), SignResponse)
        [held] = agent.keyring.identities.security_keys()
        [key] = agent.keyring.security_keys.keys()
        shown = f'("{tmp_path}/caf\\xe9\\x0a.so")'
        assert (held.place, str(key.authenticator)) == (f"security key {shown}",) * 2

    run(main())


@pytest.mark.parametrize("allowed", [False, True])
def test_a_forwarded_connection_names_none_unless_it_may(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, allowed: bool
) -> None:
    async def main() -> None:
        agent = bench(monkeypatch, tmp_path, allow_remote_pkcs11=allowed)
        forwarded = agent.new_client()
        await agent.ask(Extension(SESSION_BIND, b"nonsense"), forwarded)
        library = SkProvider(str(agent.module).encode())
        assert await add(agent, SK, library, client=forwarded) == (Success() if allowed else Failure())
        assert await add(agent, SK, INTERNAL, client=forwarded) == Success()
        refused = [] if allowed else ["a forwarded connection may not name a library for security keys"]
        assert agent.reasons[1:] == refused

    run(main())


# Signatures and PINs.


def test_a_key_and_its_certificate_share_a_pin(agent: AgentBench) -> None:
    async def main() -> None:
        certified = sk_key(certified=True)
        helper(agent).pin = PIN
        for key in (SK, certified):
            assert await add(agent, key) == Success()
        assert isinstance(await sign(agent), SignResponse)
        assert isinstance(await sign(agent, certified), SignResponse)
        assert helper(agent).sent == [b"", PIN, PIN]
        # It is there as long as one of them.
        assert await agent.ask(RemoveIdentity(SK.blob)) == Success()
        assert isinstance(await sign(agent, certified), SignResponse)
        assert await agent.ask(RemoveIdentity(certified.blob)) == Success()
        assert agent.person.pins[0].value == b""
        assert agent.keyring.security_keys.keys() == []

    run(main())


@pytest.mark.parametrize(
    "forgets",
    [
        lambda keyring: keyring.forget_pins(),
        lambda keyring: keyring.forget_pins_on(ForgetOn.SCREEN_LOCK),
        lambda keyring: keyring.remove_all(),
    ],
)
def test_what_forgets_pins_forgets_this_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, forgets: Any
) -> None:
    async def main() -> None:
        config = Config(forget_pin_on=frozenset({ForgetOn.SCREEN_LOCK}))
        agent = bench(monkeypatch, tmp_path, config=config)
        helper(agent).pin = PIN
        await add(agent)
        await sign(agent)
        [key] = agent.keyring.security_keys.keys()
        assert key.pin_remembered
        forgets(agent.keyring)
        assert not key.pin_remembered
        assert agent.person.pins[0].value == b""

    run(main())


def test_a_pin_expires(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def main() -> None:
        agent = bench(monkeypatch, tmp_path, config=Config(pin_time_to_live=60))
        helper(agent).pin = PIN
        await add(agent)
        await sign(agent)
        [key] = agent.keyring.security_keys.keys()
        assert 50 < (agent.keyring.pin_expires_in(key) or 0) <= 60
        pin = agent.person.pins[0]
        assert pin.lifetime is not None
        pin.lifetime.change(0, None)
        agent.keyring.drop_expired()
        assert not key.pin_remembered
        assert pin.value == b""

    run(main())


def test_a_lifetime_ends_and_with_it_the_wait_for_a_touch(agent: AgentBench) -> None:
    async def main() -> None:
        await add(agent)
        helper(agent).touched.clear()
        signing = asyncio.create_task(sign(agent))
        await settle()
        assert await agent.ask(RemoveAllIdentities()) == Success()
        assert await signing == Failure()
        assert agent.reasons == ["security key: the key was removed meanwhile"]
        assert helper(agent).running == 0

    run(main())


def test_only_what_ssh_signs_by_a_key_of_a_web_site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def main() -> None:
        web = sk_key("https://x")
        for options, signs in (
            ({}, False),
            ({"websafe_allow": "ssh:*,https://*"}, True),
            ({"restrict_websafe": False}, True),
        ):
            agent = bench(monkeypatch, tmp_path, **options)
            await add(agent, web)
            await agent.ask(SignRequest(web.blob, b"data", 0))
            assert bool(helper(agent).sent) is signs
            refused = "a FIDO key for https://x signs logins and SSHSIG only"
            assert (refused in agent.reasons) is not signs
            await add(agent)
            assert isinstance(await sign(agent), SignResponse)

    run(main())


# The lock.


def test_a_locked_agent_has_no_key_in_its_memory_and_signs_again_afterwards(agent: AgentBench) -> None:
    async def main() -> None:
        await add(agent)
        helper(agent).touched.clear()
        signing = asyncio.create_task(sign(agent))
        await settle()
        assert await agent.ask(Lock(b"secret")) == Success()
        assert await signing == Failure()
        assert "security key: the agent was locked meanwhile" in agent.reasons
        assert helper(agent).running == 0
        assert b"the handle" not in sealed(agent.keyring.security_keys)
        assert await sign(agent) == Failure()
        assert await agent.ask(Unlock(b"secret")) == Success()
        helper(agent).touched.set()
        assert isinstance(await sign(agent), SignResponse)

    run(main())


def sealed(keys: SecurityKeys) -> bytes:
    return b"".join(held.sealed for held in keys._held.values())


def test_status_shows_them(agent: AgentBench) -> None:
    async def main() -> None:
        from replug.agent.status import status

        await add(agent, sk_key("ssh:work"))
        [key] = (await status(agent.keyring, (), agent.history, "", ""))["security_keys"]
        assert (key["type"], key["provider"], key["application"], key["pin_remembered"]) == (
            "sk-ssh-ed25519@openssh.com",
            "internal",
            "ssh:work",
            False,
        )
        await agent.ask(Lock(b"secret"))
        assert (await status(agent.keyring, (), agent.history, "", ""))["security_keys"] == []

    run(main())
