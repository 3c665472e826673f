"""What a token is given to sign, and what becomes of its raw answer."""

from __future__ import annotations

import hashlib
import itertools
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from doubles.stand_ins import Key, run

from replug.protocol.signatures import InvalidSignatureError, Signature, verify
from replug.protocol.wire import ProtocolError
from replug.token.errors import TokenError, Verdict, WorkerRefusedError
from replug.token.identity import TokenId
from replug.token.keys import read_keys
from replug.token.serving.signing import finish_signature, signature_on, signing_algorithm, signing_steps
from replug.token.worker.client import WorkerClient

DATA = b"what is to be signed"
ALGORITHMS = {0: "ssh-rsa", 2: "rsa-sha2-256", 4: "rsa-sha2-512", 6: "rsa-sha2-256"}
RSA = Key(kind="rsa")


@pytest.mark.parametrize("flags", ALGORITHMS)
def test_flags_choose_the_hash_of_an_rsa_signature(flags: int) -> None:
    assert signing_algorithm(RSA.public, flags) == ALGORITHMS[flags]


@pytest.mark.parametrize("flags", [1, 8, 3, 2**31])
def test_other_flags_are_refused(flags: int) -> None:
    for key in (RSA, Key(kind="p256"), Key(kind="ed25519")):
        with pytest.raises(ProtocolError):
            signing_algorithm(key.public, flags)


@pytest.mark.parametrize("algorithm", ["ssh-rsa", "rsa-sha2-256", "rsa-sha2-512"])
def test_an_rsa_signature(algorithm: str) -> None:
    bare, hashing = signing_steps(RSA.public, algorithm, DATA)
    blob = finish_signature(RSA.public, algorithm, RSA.sign(bare.mechanism, bare.data), DATA)
    verify(RSA.public, blob, DATA)
    assert Signature.decode(blob).algorithm == algorithm
    hash_name = {"ssh-rsa": "SHA1", "rsa-sha2-256": "SHA256", "rsa-sha2-512": "SHA512"}[algorithm]
    assert (hashing.mechanism, hashing.data) == (f"{hash_name}_RSA_PKCS", DATA)


def test_a_short_rsa_signature_is_padded() -> None:
    """Some modules leave out leading zeros; one signature in 256 has one."""
    signatures = (
        (data, RSA.private.sign(data, PKCS1v15(), SHA256())) for data in map(bytes, itertools.count())
    )
    data, raw = next((data, raw) for data, raw in signatures if raw[0] == 0)
    blob = finish_signature(RSA.public, "rsa-sha2-256", raw.lstrip(b"\0"), data)
    assert Signature.decode(blob).value == raw


@pytest.mark.parametrize(
    ("kind", "mechanisms"), [("p256", ["ECDSA", "ECDSA_SHA256"]), ("ed25519", ["EDDSA"])]
)
def test_signatures_on_curves(kind: str, mechanisms: list[str]) -> None:
    key = Key(kind=kind)
    algorithm = signing_algorithm(key.public, 0)
    steps = list(signing_steps(key.public, algorithm, DATA))
    assert [step.mechanism for step in steps] == mechanisms
    for step in steps:
        blob = finish_signature(key.public, algorithm, key.sign(step.mechanism, step.data), DATA)
        verify(key.public, blob, DATA)


def test_long_data_is_hashed_before_it_goes_to_the_token() -> None:
    first, _ = signing_steps(Key(kind="p256").public, "ecdsa-sha2-nistp256", DATA * 1000)
    assert first.data == hashlib.sha256(DATA * 1000).digest()


@pytest.mark.parametrize("kind", ["rsa", "p256", "ed25519"])
def test_a_signature_by_another_key_is_not_handed_out(kind: str) -> None:
    advertised, other = Key(kind=kind), Key(kind=kind)
    algorithm = signing_algorithm(advertised.public, 2 if kind == "rsa" else 0)
    step = next(signing_steps(advertised.public, algorithm, DATA))
    with pytest.raises(InvalidSignatureError):
        finish_signature(advertised.public, algorithm, other.sign(step.mechanism, step.data), DATA)


@pytest.mark.parametrize("kind", ["rsa", "p256", "ed25519"])
@pytest.mark.parametrize("raw", [b"", b"\0", bytes(64), b"\xff" * 300])
def test_garbage_is_not_handed_out(kind: str, raw: bytes) -> None:
    key = Key(kind=kind)
    with pytest.raises(InvalidSignatureError):
        finish_signature(key.public, signing_algorithm(key.public, 0), raw, DATA)


class LockedMeanwhile:
    """A worker whose token lacks the first mechanism; while it says so, the agent is locked."""

    def __init__(self, pin: bytearray) -> None:
        self._pin = pin
        self.pins: list[bytes] = []
        self.candidates: dict[object, int] = {}

    async def sign(self, *arguments: object, **_: object) -> object:
        self.pins.append(bytes(self._pin))
        self._pin.clear()
        raise WorkerRefusedError(Verdict.MECHANISM, "CKR_MECHANISM_INVALID")


def test_no_login_without_the_pin_after_it_was_withdrawn() -> None:
    """An empty one would be taken for the keypad."""
    pin = bytearray(b"123456")
    worker = LockedMeanwhile(pin)
    key = read_keys([RSA.record() | {"always_authenticate": True}])[RSA.blob]

    async def main() -> None:
        with pytest.raises(TokenError, match="withdrawn"):
            await signature_on(cast(WorkerClient, worker), TokenId("", "", "", ""), key, "ssh-rsa", DATA, pin)

    run(main())
    assert worker.pins == [b"123456"]
