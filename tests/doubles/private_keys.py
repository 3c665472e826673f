"""Private keys as `ssh-add` sends them."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from doubles.stand_ins import Key

from replug.protocol.constraints import Constraint
from replug.protocol.keys import CompositePublicKey, Curve, EcdsaPublicKey, Ed25519PublicKey
from replug.protocol.messages import AddIdentity
from replug.protocol.private_keys import (
    CompositePrivateKey,
    EcdsaPrivateKey,
    Ed25519PrivateKey,
    PrivateKey,
    RsaPrivateKey,
)


def ed25519_key() -> Ed25519PrivateKey:
    private = ed25519.Ed25519PrivateKey.generate()
    public = Ed25519PublicKey(private.public_key().public_bytes_raw())
    return Ed25519PrivateKey(public, private.private_bytes_raw())


def composite_key(name: str = "ssh-mldsa44-ed25519") -> CompositePrivateKey:
    first, second = mldsa.MLDSA44PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
    numbers = first.public_key().public_bytes_raw() + second.public_key().public_bytes_raw()
    seeds = first.private_bytes_raw() + second.private_bytes_raw()
    return CompositePrivateKey(CompositePublicKey(name, numbers), seeds)


def ecdsa_key(curve: Curve) -> EcdsaPrivateKey:
    curves = {Curve.NISTP256: ec.SECP256R1(), Curve.NISTP384: ec.SECP384R1(), Curve.NISTP521: ec.SECP521R1()}
    private = ec.generate_private_key(curves[curve])
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return EcdsaPrivateKey(EcdsaPublicKey(curve, point), private.private_numbers().private_value)


def rsa_key(size: int = 2048) -> RsaPrivateKey:
    key = Key()
    key.private = rsa.generate_private_key(65537, size)
    numbers = key.private.private_numbers()
    return RsaPrivateKey(key.public, numbers.d, numbers.iqmp, numbers.p, numbers.q)  # type: ignore[arg-type]


def message(key: PrivateKey, *constraints: Constraint, comment: bytes = b"me@here") -> bytearray:
    return bytearray(AddIdentity(key, comment, constraints).encode())
