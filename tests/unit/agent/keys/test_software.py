"""Software keys: added, used, kept through crashes and locks, and gone when removed. The process is real."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from doubles.private_keys import ecdsa_key, ed25519_key, message, rsa_key
from doubles.session_hosts import certificate
from doubles.stand_ins import Key, ended, run, settle

from replug.agent.keys import software as vault_module
from replug.agent.keys.software import Vault, VaultKey
from replug.agent.refusal import RequestRefusedError
from replug.protocol.certificates import Certificate
from replug.protocol.constraints import Confirm, Lifetime, SkProvider
from replug.protocol.keys import Curve, RsaPublicKey, SkPublicKey
from replug.protocol.private_keys import (
    EcdsaPrivateKey,
    Ed25519PrivateKey,
    PrivateKey,
    RsaPrivateKey,
    SkPrivateKey,
)
from replug.protocol.signatures import Signature, verify
from replug.token.seal import KEY_SIZE, Seal
from replug.token.worker.process import WorkerProcess

DERIVED = bytearray(b"k" * KEY_SIZE)
DATA = b"data to sign"


KEYS: dict[str, Callable[[], PrivateKey]] = {
    "ed25519": ed25519_key,
    "nistp256": lambda: ecdsa_key(Curve.NISTP256),
    "nistp384": lambda: ecdsa_key(Curve.NISTP384),
    "nistp521": lambda: ecdsa_key(Curve.NISTP521),
    "rsa": rsa_key,
}


async def check(vault: Vault, key: PrivateKey) -> None:
    verify(key.public, await vault.sign(key.blob, DATA, 0), DATA)  # type: ignore[arg-type]


async def refusal(awaitable: Any) -> str:
    with pytest.raises(RequestRefusedError) as caught:
        await awaitable
    return caught.value.reason


def process_of(vault: Vault) -> int:
    assert vault._process is not None
    return vault._process.pid


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_signs(kind: str) -> None:
    async def main() -> None:
        vault, key = Vault(Seal()), KEYS[kind]()
        assert await vault.add(message(key)) == VaultKey(key.blob, b"me@here", ())
        await check(vault, key)
        vault.clear()

    run(main())


def test_flags_choose_the_hash_of_an_rsa_key_and_of_no_other() -> None:
    async def main() -> None:
        vault, key, other = Vault(Seal()), rsa_key(), ed25519_key()
        await vault.add(message(key))
        await vault.add(message(other))
        for flags, name in ((0, "ssh-rsa"), (2, "rsa-sha2-256"), (4, "rsa-sha2-512"), (6, "rsa-sha2-256")):
            blob = await vault.sign(key.blob, DATA, flags)
            assert Signature.decode(blob).algorithm == name
            verify(key.public, blob, DATA)
            verify(other.public, await vault.sign(other.blob, DATA, flags), DATA)
        for unknown in (1, 8, 2**31):
            assert "unknown signature flags" in await refusal(vault.sign(key.blob, DATA, unknown))
            assert "unknown signature flags" in await refusal(vault.sign(other.blob, DATA, unknown))
        await check(vault, key)
        vault.clear()

    run(main())


def test_a_key_and_its_certificate_are_two_and_sign_alike() -> None:
    async def main() -> None:
        vault, key, holder = Vault(Seal()), ed25519_key(), Key()
        holder.private = ed25519.Ed25519PrivateKey.from_private_bytes(key.seed)
        blob = certificate(holder, Key(), "alice")
        certified = Ed25519PrivateKey(key.public, key.seed, certificate=Certificate.decode(blob))
        assert (await vault.add(message(key))).blob == key.blob
        assert (await vault.add(message(certified))).blob == blob
        vault.remove(key.blob)
        signature = await vault.sign(blob, DATA, 0)
        assert Signature.decode(signature).algorithm == "ssh-ed25519"
        verify(key.public, signature, DATA)
        assert await refusal(vault.sign(key.blob, DATA, 0)) == "the key was removed meanwhile"
        vault.clear()

    run(main())


def test_the_constraints_come_back_to_the_agent() -> None:
    async def main() -> None:
        vault, constraints = Vault(Seal()), (Lifetime(9), Confirm(), SkProvider(b"x"))
        added = await vault.add(message(ed25519_key(), *constraints, comment=b"\xff\x00"[:1]))
        assert (added.comment, added.constraints) == (b"\xff", constraints)
        vault.clear()

    run(main())


def sk_key() -> SkPrivateKey:
    return SkPrivateKey(SkPublicKey(ed25519_key().public, "ssh:"), 1, b"handle", b"")


def other_half(key: PrivateKey) -> PrivateKey:
    """The key with the public half of another one."""
    match key:
        case Ed25519PrivateKey():
            return Ed25519PrivateKey(ed25519_key().public, key.seed)
        case EcdsaPrivateKey():
            return EcdsaPrivateKey(ecdsa_key(key.public.curve).public, key.d)
        case RsaPrivateKey():
            return RsaPrivateKey(rsa_key().public, key.d, key.iqmp, key.p, key.q)
    raise AssertionError


def changed_rsa_key(**changes: int) -> RsaPrivateKey:
    return replace(rsa_key(), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (lambda: message(sk_key()), "keys of FIDO authenticators (sk-ssh-ed25519@openssh.com)"),
        (lambda: message(other_half(ed25519_key())), "the public half of the ssh-ed25519 key"),
        (lambda: message(other_half(ecdsa_key(Curve.NISTP256))), "not a valid ecdsa-sha2-nistp256 key"),
        (lambda: message(other_half(rsa_key())), "not a valid ssh-rsa key"),
        (lambda: message(changed_rsa_key(d=3)), "not a valid ssh-rsa key"),
        (lambda: message(changed_rsa_key(iqmp=1)), "not a valid ssh-rsa key"),
        (lambda: message(changed_rsa_key(p=1)), "not a valid ssh-rsa key"),
        (lambda: message(ed25519_key())[:-1], "truncated"),
        (lambda: bytearray(b"\x11"), "truncated"),
        (lambda: message(ed25519_key()) + b"\x63", "unknown key constraint 99"),
        (lambda: message(ed25519_key()) + b"\2\2", "constraint Confirm given twice"),
        (lambda: bytearray(b"\x11\0\0\0\7ssh-dss"), "'ssh-dss' is not supported"),
    ],
    ids=[
        "fido",
        "ed25519",
        "ecdsa",
        "rsa",
        "rsa d",
        "rsa iqmp",
        "rsa p",
        "truncated",
        "empty",
        "unknown",
        "twice",
        "dsa",
    ],
)
def test_what_is_no_key_is_refused_with_a_reason_and_leaves_no_process(
    bad: Callable[[], bytearray], reason: str
) -> None:
    async def main() -> None:
        vault = Vault(Seal())
        assert reason in await refusal(vault.add(bad()))
        assert vault._process is None
        # Nor does it disturb the keys that are there.
        await vault.add(message(key := ed25519_key()))
        process = process_of(vault)
        assert reason in await refusal(vault.add(bad()))
        await check(vault, key)
        assert process_of(vault) == process
        vault.clear()

    run(main())


def test_the_largest_rsa_key_is_not_looked_at_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether 14112 bits are a product of two primes takes longer than any request may."""
    p, q, e = 2**9689 - 1, 2**4423 - 1, 65537
    d = pow(e, -1, (p - 1) * (q - 1))
    key = RsaPrivateKey(RsaPublicKey(e, p * q), d, pow(q, -1, p), p, q)
    monkeypatch.setattr(vault_module, "_DEADLINE", 15.0)

    async def main() -> None:
        vault = Vault(Seal())
        await vault.add(message(key))
        await check(vault, key)
        vault.clear()

    run(main())


def test_keys_outlive_the_process() -> None:
    async def main() -> None:
        vault, keys = Vault(Seal()), [ed25519_key(), rsa_key(), ecdsa_key(Curve.NISTP384)]
        for key in keys:
            await vault.add(message(key))
        os.kill(process_of(vault), signal.SIGKILL)
        for key in keys:
            await check(vault, key)
        # Stopped it is as good as hung; killed in the middle of a signature, this is tried again.
        before = process_of(vault)
        os.kill(before, signal.SIGSTOP)
        signing = asyncio.create_task(check(vault, keys[0]))
        await asyncio.sleep(0.05)
        assert not signing.done()
        os.kill(before, signal.SIGKILL)
        await signing
        assert process_of(vault) != before
        vault.clear()

    run(main())


def test_a_client_that_leaves_while_its_signature_is_made_costs_nobody_the_process() -> None:
    async def main() -> None:
        vault, key = Vault(Seal()), ed25519_key()
        await vault.add(message(key))
        process = process_of(vault)
        os.kill(process, signal.SIGSTOP)
        leaving = asyncio.create_task(check(vault, key))
        await settle()
        leaving.cancel()
        staying = asyncio.create_task(check(vault, key))
        await settle()
        os.kill(process, signal.SIGCONT)
        await staying
        assert leaving.cancelled()
        assert process_of(vault) == process
        vault.clear()

    run(main())


def test_removing_ends_the_process_and_keeps_the_others() -> None:
    async def main() -> None:
        vault, one, other = Vault(Seal()), ed25519_key(), ed25519_key()
        await vault.add(message(one))
        await vault.add(message(other))
        process = process_of(vault)
        vault.remove(one.blob)
        await ended(process)
        await check(vault, other)
        vault.remove(one.blob)  # is not there
        await check(vault, other)
        process = process_of(vault)
        vault.keep_only([])
        await ended(process)
        assert vault._sealed == {}

    run(main())


def test_a_shut_seal_keeps_the_keys_from_everybody() -> None:
    async def main() -> None:
        seal = Seal()
        vault, key = Vault(seal), ed25519_key()
        await vault.add(message(key))
        process = process_of(vault)
        vault.suspend()
        seal.shut(DERIVED)
        await ended(process)
        assert await refusal(vault.sign(key.blob, DATA, 0)) == "the agent is locked"
        assert vault._process is None
        assert await refusal(vault.add(message(rsa_key()))) in (
            "the agent is locked",
            "the agent was locked meanwhile",
        )
        assert vault._process is None
        seal.reopen(DERIVED)
        await check(vault, key)
        vault.clear()

    run(main())


def test_ended_just_as_it_has_its_keys_the_process_starts_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locked and unlocked between the last key's arrival and the signature."""

    async def main() -> None:
        vault, key = Vault(Seal()), ed25519_key()
        await vault.add(message(key))
        vault.suspend()
        add, processes = vault_module._add, []

        async def then_suspended(process: WorkerProcess, body: bytearray) -> VaultKey:
            added = await add(process, body)
            processes.append(process)
            if len(processes) == 1:
                vault.suspend()
            return added

        monkeypatch.setattr(vault_module, "_add", then_suspended)
        await check(vault, key)
        assert len(processes) == 2
        vault.clear()

    run(main())


def test_a_process_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        def fail(_program: str) -> None:
            raise OSError(11, "Resource temporarily unavailable")

        vault = Vault(Seal())
        with monkeypatch.context() as patch:
            patch.setattr("replug.agent.keys.software.WorkerProcess", fail)
            reason = await refusal(vault.add(message(ed25519_key())))
        assert reason == "the process for software keys does not start: Resource temporarily unavailable"
        await vault.add(message(key := ed25519_key()))
        await check(vault, key)
        vault.clear()

    run(main())
