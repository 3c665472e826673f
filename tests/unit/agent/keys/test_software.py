"""Software keys: added, used, kept through crashes and locks, and gone when removed. The process is real."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from doubles.fork_servers import running_fork_server
from doubles.private_keys import composite_key, ecdsa_key, ed25519_key, message, rsa_key
from doubles.session_hosts import certificate
from doubles.stand_ins import Key, ended, run, settle

from replug.agent.keys import key_process
from replug.agent.keys import software as software_module
from replug.agent.keys.key_process import KeyProcess
from replug.agent.keys.refusal import RequestRefusedError
from replug.agent.keys.software import SoftwareKeys
from replug.protocol.additions import KeyAddition
from replug.protocol.certificates import Certificate
from replug.protocol.keys import Curve, RsaPublicKey, parse_public_key
from replug.protocol.private_keys import (
    CompositePrivateKey,
    EcdsaPrivateKey,
    Ed25519PrivateKey,
    PrivateKey,
    RsaPrivateKey,
)
from replug.protocol.signatures import Signature, verify
from replug.token.requester import Requester, requester
from replug.token.seal import KEY_SIZE, Seal
from replug.token.worker.forking import Forked, ForkServer
from replug.token.worker.process import WorkerProcess

DERIVED = bytearray(b"k" * KEY_SIZE)
DATA = b"data to sign"


KEYS: dict[str, Callable[[], PrivateKey]] = {
    "ed25519": ed25519_key,
    "nistp256": lambda: ecdsa_key(Curve.NISTP256),
    "nistp384": lambda: ecdsa_key(Curve.NISTP384),
    "nistp521": lambda: ecdsa_key(Curve.NISTP521),
    "rsa": rsa_key,
    "mldsa44-ed25519": composite_key,
    "mldsa44-ed25519 of OpenSSH 10.5": lambda: composite_key("ssh-mldsa44-ed25519@openssh.com"),
}


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServer]:
    with running_fork_server() as server:
        yield server


async def check(software: SoftwareKeys, key: PrivateKey) -> None:
    verify(key.public, await software.sign(key.blob, DATA, 0), DATA)  # type: ignore[arg-type]


async def refusal(awaitable: Any) -> str:
    with pytest.raises(RequestRefusedError) as caught:
        await awaitable
    return caught.value.reason


def process_of(software: SoftwareKeys) -> int:
    [process] = processes_of(software)
    return process


def processes_of(software: SoftwareKeys) -> list[int]:
    return [one._process.pid for one in software._quick_processes if one._process is not None]


def added(key: PrivateKey) -> KeyAddition:
    return KeyAddition.decode(message(key))


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_signs(kind: str, fork_server: ForkServer) -> None:
    async def main() -> None:
        software, key = SoftwareKeys(Seal(), fork_server), KEYS[kind]()
        await software.add(added(key))
        await check(software, key)
        software.clear()

    run(main())


def test_a_key_is_made_and_signs_until_it_is_removed(fork_server: ForkServer) -> None:
    """Other keys come and go meanwhile; it is given to a fresh process like any other."""

    async def main() -> None:
        software, key = SoftwareKeys(Seal(), fork_server), ed25519_key()
        blob, other = await software.make(), await software.make()
        public = parse_public_key(blob)
        assert blob != other
        await software.add(added(key))
        software.keep_only([])
        software.suspend()
        verify(public, await software.sign(blob, DATA, 0), DATA)
        software.remove(blob)
        assert "removed meanwhile" in await refusal(software.sign(blob, DATA, 0))
        software.clear()
        assert "removed meanwhile" in await refusal(software.sign(other, DATA, 0))

    run(main())


def test_flags_choose_the_hash_of_an_rsa_key_and_of_no_other(fork_server: ForkServer) -> None:
    async def main() -> None:
        software, key, other = SoftwareKeys(Seal(), fork_server), rsa_key(), ed25519_key()
        await software.add(added(key))
        await software.add(added(other))
        for flags, name in ((0, "ssh-rsa"), (2, "rsa-sha2-256"), (4, "rsa-sha2-512"), (6, "rsa-sha2-256")):
            blob = await software.sign(key.blob, DATA, flags)
            assert Signature.decode(blob).algorithm == name
            verify(key.public, blob, DATA)
            verify(other.public, await software.sign(other.blob, DATA, flags), DATA)
        for unknown in (1, 8, 2**31):
            assert "unknown signature flags" in await refusal(software.sign(key.blob, DATA, unknown))
            assert "unknown signature flags" in await refusal(software.sign(other.blob, DATA, unknown))
        await check(software, key)
        software.clear()

    run(main())


def test_a_key_and_its_certificate_are_two_and_sign_alike(fork_server: ForkServer) -> None:
    async def main() -> None:
        software, key, holder = SoftwareKeys(Seal(), fork_server), ed25519_key(), Key()
        holder.private = ed25519.Ed25519PrivateKey.from_private_bytes(key.seed)
        blob = certificate(holder, Key(), "alice")
        certified = Ed25519PrivateKey(key.public, key.seed, certificate=Certificate.decode(blob))
        await software.add(added(key))
        await software.add(added(certified))
        software.remove(key.blob)
        signature = await software.sign(blob, DATA, 0)
        assert Signature.decode(signature).algorithm == "ssh-ed25519"
        verify(key.public, signature, DATA)
        assert await refusal(software.sign(key.blob, DATA, 0)) == "the key was removed meanwhile"
        software.clear()

    run(main())


def other_half(key: PrivateKey) -> PrivateKey:
    """The key with the public half of another one."""
    match key:
        case Ed25519PrivateKey():
            return Ed25519PrivateKey(ed25519_key().public, key.seed)
        case EcdsaPrivateKey():
            return EcdsaPrivateKey(ecdsa_key(key.public.curve).public, key.d)
        case CompositePrivateKey():
            return CompositePrivateKey(composite_key().public, key.seeds)
        case RsaPrivateKey():
            return RsaPrivateKey(rsa_key().public, key.d, key.iqmp, key.p, key.q)
    raise AssertionError


def rsa_key_of(p: int, q: int) -> RsaPrivateKey:
    d = pow(65537, -1, math.lcm(p - 1, q - 1))
    return RsaPrivateKey(RsaPublicKey(65537, p * q), d, pow(q, -1, p), p, q)


def changed_rsa_key(**changes: int) -> RsaPrivateKey:
    return replace(rsa_key(), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (lambda: message(other_half(ed25519_key())), "the public half of the ssh-ed25519 key"),
        (lambda: message(other_half(composite_key())), "the public half of the ssh-mldsa44-ed25519 key"),
        (lambda: message(other_half(ecdsa_key(Curve.NISTP256))), "not a valid ecdsa-sha2-nistp256 key"),
        (lambda: message(other_half(rsa_key())), "not a valid ssh-rsa key"),
        (lambda: message(changed_rsa_key(d=3)), "not a valid ssh-rsa key"),
        (lambda: message(changed_rsa_key(iqmp=1)), "not a valid ssh-rsa key"),
        (lambda: message(changed_rsa_key(p=1)), "not a valid ssh-rsa key"),
        (lambda: message(rsa_key_of(2**1023 + 1, 2**1022 + 1)), "not a valid ssh-rsa key: its signatures"),
    ],
    ids=[
        "ed25519",
        "mldsa44-ed25519",
        "ecdsa",
        "rsa",
        "rsa d",
        "rsa iqmp",
        "rsa p",
        "rsa of no primes",
    ],
)
def test_what_is_no_key_is_refused_with_a_reason_and_leaves_no_process(
    bad: Callable[[], bytearray], reason: str, fork_server: ForkServer
) -> None:
    async def main() -> None:
        software = SoftwareKeys(Seal(), fork_server)
        assert reason in await refusal(software.add(KeyAddition.decode(bad())))
        assert processes_of(software) == []
        # Nor does it disturb the keys that are there.
        await software.add(added(key := ed25519_key()))
        process = process_of(software)
        assert reason in await refusal(software.add(KeyAddition.decode(bad())))
        await check(software, key)
        assert process_of(software) == process
        software.clear()

    run(main())


def test_the_largest_rsa_key_is_not_looked_at_for_long(
    monkeypatch: pytest.MonkeyPatch, fork_server: ForkServer
) -> None:
    """Whether 14112 bits are a product of two primes takes longer than any request may."""
    p, q, e = 2**9689 - 1, 2**4423 - 1, 65537
    d = pow(e, -1, (p - 1) * (q - 1))
    key = RsaPrivateKey(RsaPublicKey(e, p * q), d, pow(q, -1, p), p, q)
    monkeypatch.setattr(key_process, "_SLOW_DEADLINE", 30.0)

    async def main() -> None:
        software = SoftwareKeys(Seal(), fork_server)
        await software.add(added(key))
        await check(software, key)
        software.clear()

    run(main())


def test_a_key_of_uneven_primes_is_in_no_others_way(fork_server: ForkServer) -> None:
    """A signature by it takes six times as long as by others of its size."""

    async def main() -> None:
        software = SoftwareKeys(Seal(), fork_server)
        uneven, even = rsa_key_of(2**2203 - 1, 2**1279 - 1), rsa_key()
        await software.add(added(uneven))
        assert processes_of(software) == []
        await check(software, uneven)
        assert processes_of(software) == []
        await software.add(added(even))
        assert len(processes_of(software)) == 1
        software.clear()

    run(main())


def test_keys_outlive_the_process(fork_server: ForkServer) -> None:
    async def main() -> None:
        software, keys = (
            SoftwareKeys(Seal(), fork_server),
            [ed25519_key(), rsa_key(), ecdsa_key(Curve.NISTP384)],
        )
        for key in keys:
            await software.add(added(key))
        os.kill(process_of(software), signal.SIGKILL)
        for key in keys:
            await check(software, key)
        # Stopped it is as good as hung; killed in the middle of a signature, this is tried again.
        before = process_of(software)
        os.kill(before, signal.SIGSTOP)
        signing = asyncio.create_task(check(software, keys[0]))
        await asyncio.sleep(0.05)
        assert not signing.done()
        os.kill(before, signal.SIGKILL)
        await signing
        assert process_of(software) != before
        software.clear()

    run(main())


def test_a_client_that_leaves_while_its_signature_is_made_costs_nobody_the_process(
    fork_server: ForkServer,
) -> None:
    async def main() -> None:
        software, key = SoftwareKeys(Seal(), fork_server), ed25519_key()
        await software.add(added(key))
        process = process_of(software)
        os.kill(process, signal.SIGSTOP)
        leaving = asyncio.create_task(check(software, key))
        await settle()
        leaving.cancel()
        staying = asyncio.create_task(check(software, key))
        await settle()
        os.kill(process, signal.SIGCONT)
        await staying
        assert leaving.cancelled()
        assert process_of(software) == process
        software.clear()

    run(main())


def test_removing_ends_the_process_and_keeps_the_others(fork_server: ForkServer) -> None:
    async def main() -> None:
        software, one, other = SoftwareKeys(Seal(), fork_server), ed25519_key(), ed25519_key()
        await software.add(added(one))
        await software.add(added(other))
        process = process_of(software)
        software.remove(one.blob)
        await ended(process)
        await check(software, other)
        software.remove(one.blob)  # is not there
        await check(software, other)
        process = process_of(software)
        software.keep_only([])
        await ended(process)
        assert software._sealed == {}

    run(main())


def test_what_one_program_asks_for_does_not_hold_up_another(fork_server: ForkServer) -> None:
    """Each has a process with what it needs, up to a number."""

    async def main() -> None:
        software, theirs, ours = SoftwareKeys(Seal(), fork_server), ed25519_key(), ed25519_key()

        async def as_program(name: str, key: PrivateKey) -> None:
            requester.set(Requester((0, name), 1))
            await check(software, key)

        await software.add(added(theirs))
        await software.add(added(ours))
        os.kill(process_of(software), signal.SIGSTOP)
        stuck = asyncio.create_task(check(software, theirs))
        await settle()
        await asyncio.create_task(as_program("ours", ours))
        # A key that is removed leaves those processes alone that have never needed it.
        ours_alone = processes_of(software)[1]
        software.remove(theirs.blob)
        assert "removed" in await refusal(stuck)
        assert ours_alone in processes_of(software)
        for number in range(20):
            await asyncio.create_task(as_program(str(number), ours))
        assert len(processes_of(software)) == software_module._MOST_PROCESSES
        software.clear()
        assert processes_of(software) == []

    run(main())


def test_a_shut_seal_keeps_the_keys_from_everybody(fork_server: ForkServer) -> None:
    async def main() -> None:
        seal = Seal()
        software, key = SoftwareKeys(seal, fork_server), ed25519_key()
        await software.add(added(key))
        process = process_of(software)
        software.suspend()
        seal.shut(DERIVED)
        await ended(process)
        assert await refusal(software.sign(key.blob, DATA, 0)) == "the agent is locked"
        assert processes_of(software) == []
        assert await refusal(software.add(added(rsa_key()))) in (
            "the agent is locked",
            "the agent was locked meanwhile",
        )
        assert processes_of(software) == []
        seal.reopen(DERIVED)
        await check(software, key)
        software.clear()

    run(main())


def test_ended_just_as_it_has_its_keys_the_process_starts_once_more(
    monkeypatch: pytest.MonkeyPatch, fork_server: ForkServer
) -> None:
    """Locked and unlocked between the last key's arrival and the signature."""

    async def main() -> None:
        software, key = SoftwareKeys(Seal(), fork_server), ed25519_key()
        await software.add(added(key))
        software.suspend()
        give, processes = KeyProcess._give, []

        async def then_suspended(
            self: KeyProcess, process: WorkerProcess, blob: bytes, body: bytearray
        ) -> None:
            await give(self, process, blob, body)
            processes.append(process)
            if len(processes) == 1:
                software.suspend()

        monkeypatch.setattr(KeyProcess, "_give", then_suspended)
        await check(software, key)
        assert len(processes) == 2
        software.clear()

    run(main())


def test_a_process_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, fork_server: ForkServer) -> None:
    async def main() -> None:
        async def fail(*_: object) -> Forked:
            raise OSError(11, "Resource temporarily unavailable")

        software = SoftwareKeys(Seal(), fork_server)
        with monkeypatch.context() as patch:
            patch.setattr(fork_server, "fork", fail)
            reason = await refusal(software.add(added(ed25519_key())))
        assert reason == "the process for software keys does not start: Resource temporarily unavailable"
        await software.add(added(key := ed25519_key()))
        await check(software, key)
        software.clear()

    run(main())


def test_there_is_an_end_to_what_is_held(fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each key costs every later change, and nobody accepts a longer list."""

    async def main() -> None:
        software = SoftwareKeys(Seal(), fork_server)
        monkeypatch.setattr(software_module, "MOST_KEYS", 3)
        keys = [ed25519_key() for _ in range(4)]
        for key in keys[:3]:
            await software.add(KeyAddition.decode(message(key)))
        full = "the agent holds 3 keys already"
        assert await refusal(software.add(KeyAddition.decode(message(keys[3])))) == full
        await software.add(KeyAddition.decode(message(keys[0])))  # again
        software.remove(keys[1].blob)
        await software.add(KeyAddition.decode(message(keys[3])))
        monkeypatch.setattr(software_module, "MOST_KEYS", 100)
        monkeypatch.setattr(software_module, "_MOST_BYTES", 4 * len(message(keys[0])))
        assert await refusal(software.add(KeyAddition.decode(message(ed25519_key())))) == full
        for key in (keys[0], keys[2], keys[3]):
            await check(software, key)
        software.clear()

    run(main())
