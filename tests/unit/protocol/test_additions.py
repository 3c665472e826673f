"""What is read of a request to add a key, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from doubles.private_keys import composite_key, ecdsa_key, ed25519_key, message, rsa_key
from doubles.session_hosts import certificate
from doubles.stand_ins import Key

from replug.protocol.additions import KeyAddition
from replug.protocol.certificates import Certificate
from replug.protocol.constraints import AssociatedCerts, Confirm, Constraint, Lifetime, SkProvider
from replug.protocol.decoding import decode_request
from replug.protocol.keys import Curve, SkPublicKey
from replug.protocol.messages import AddIdentity
from replug.protocol.private_keys import Ed25519PrivateKey, PrivateKey, SkPrivateKey
from replug.protocol.wire import ProtocolError


def certified_key() -> PrivateKey:
    key, holder = ed25519_key(), Key()
    holder.private = ed25519.Ed25519PrivateKey.from_private_bytes(key.seed)
    blob = certificate(holder, Key(), "alice")
    return Ed25519PrivateKey(key.public, key.seed, certificate=Certificate.decode(blob))


def sk_key() -> PrivateKey:
    return SkPrivateKey(SkPublicKey(ed25519_key().public, "ssh:"), 1, b"handle", b"")


def sk_p256_key() -> PrivateKey:
    public = ecdsa_key(Curve.NISTP256).public
    return SkPrivateKey(SkPublicKey(public, "ssh:"), 5, b"handle", b"")  # type: ignore[arg-type]


def certified_sk_key(application: str = "ssh:") -> SkPrivateKey:
    public = SkPublicKey(ed25519_key().public, application)
    body = Certificate.decode(certificate(Key(), Key(), "alice"))
    certified = replace(body, key=public)
    return SkPrivateKey(public, 1, b"handle", b"", certificate=certified)


def mixed_certificate() -> bytearray:
    """The certificate of a key, and the private half of another."""
    sent = message(certified_sk_key())
    at = sent.rindex(b"\0\0\0\4ssh:") + 4
    sent[at : at + 4] = b"ssh;"
    return sent


KEYS: dict[str, Callable[[], PrivateKey]] = {
    "ed25519": ed25519_key,
    "nistp256": lambda: ecdsa_key(Curve.NISTP256),
    "rsa": rsa_key,
    "mldsa44-ed25519": composite_key,
    "certificate": certified_key,
    "sk-ed25519": sk_key,
    "sk-nistp256": sk_p256_key,
    "sk-certificate": certified_sk_key,
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("constraints", [(), (Lifetime(9), Confirm(), SkProvider(b"x"))])
def test_it_says_what_the_whole_request_says(kind: str, constraints: tuple[Constraint, ...]) -> None:
    sent = message(KEYS[kind](), *constraints, comment=b"\xff")
    whole = decode_request(bytes(sent))
    assert isinstance(whole, AddIdentity)

    read = KeyAddition.decode(sent)

    assert read.blob == whole.key.blob
    assert (read.comment, read.constraints) == (whole.comment, whole.constraints)
    assert read.message is sent
    flags = whole.key.flags if isinstance(whole.key, SkPrivateKey) else 0
    assert read.sk_flags == flags
    assert read.private_key() == whole.key.encode()
    read.wipe()
    assert not any(sent)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (lambda: message(sk_key())[:-20], "truncated"),
        (lambda: mixed_certificate(), "the certificate is for another key"),
        (lambda: message(ed25519_key())[:-1], "truncated"),
        (lambda: bytearray(b"\x11"), "truncated"),
        (lambda: bytearray(b"\x0b"), "not a request to add a key"),
        (lambda: message(ed25519_key()) + b"\x63", "unknown key constraint 99"),
        (lambda: message(ed25519_key()) + b"\2\2", "constraint Confirm given twice"),
        (lambda: message(ed25519_key(), AssociatedCerts(False, ())), "does not belong in this request"),
        (lambda: bytearray(b"\x11\0\0\0\7ssh-dss"), "ssh-dss is not supported"),
        (lambda: message(ed25519_key(), comment=bytes(4097).replace(b"\0", b"c")), "more than 4096 bytes"),
    ],
)
def test_what_adds_no_key_is_refused(sent: Callable[[], bytearray], reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        KeyAddition.decode(sent())
    assert reason in str(caught.value)
