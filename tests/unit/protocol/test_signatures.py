"""Signature blobs: from what a token computes to what a server accepts."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from replug.protocol.keys import Curve, EcdsaPublicKey, Ed25519PublicKey, RsaPublicKey
from replug.protocol.signatures import (
    InvalidSignatureError,
    Signature,
    ecdsa_signature,
    rsa_algorithm,
    rsa_digest_info,
    verified_ecdsa,
    verify,
)
from replug.protocol.wire import ProtocolError, Writer

DATA = b"to be signed"
RSA_HASHES = {"ssh-rsa": hashes.SHA1(), "rsa-sha2-256": hashes.SHA256(), "rsa-sha2-512": hashes.SHA512()}
CURVES = {Curve.NISTP256: ec.SECP256R1(), Curve.NISTP384: ec.SECP384R1(), Curve.NISTP521: ec.SECP521R1()}
ECDSA_HASHES = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def our(key: rsa.RSAPrivateKey) -> RsaPublicKey:
    numbers = key.public_key().public_numbers()
    return RsaPublicKey(numbers.e, numbers.n)


def ecdsa_key(curve: Curve) -> tuple[ec.EllipticCurvePrivateKey, EcdsaPublicKey]:
    key = ec.derive_private_key(12345, CURVES[curve])
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return key, EcdsaPublicKey(curve, point)


@pytest.mark.parametrize("algorithm", RSA_HASHES)
def test_rsa(rsa_key: rsa.RSAPrivateKey, algorithm: str):
    value = rsa_key.sign(DATA, padding.PKCS1v15(), RSA_HASHES[algorithm])
    verify(our(rsa_key), Signature(algorithm, value).encode(), DATA)
    for other in RSA_HASHES.keys() - {algorithm}:
        with pytest.raises(InvalidSignatureError, match="does not match"):
            verify(our(rsa_key), Signature(other, value).encode(), DATA)


@pytest.mark.parametrize("algorithm", RSA_HASHES)
def test_digest_info_is_what_pkcs1_signs(rsa_key: rsa.RSAPrivateKey, algorithm: str):
    value = rsa_key.sign(DATA, padding.PKCS1v15(), RSA_HASHES[algorithm])
    public = our(rsa_key)
    padded = pow(int.from_bytes(value, "big"), public.e, public.n).to_bytes(256, "big")
    assert padded.rpartition(b"\xff\0")[2] == rsa_digest_info(algorithm, DATA)


def test_rsa_without_its_leading_zero(rsa_key: rsa.RSAPrivateKey):
    for number in itertools.count():
        data = str(number).encode()
        value = rsa_key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        if value[0] == 0:
            break
    verify(our(rsa_key), Signature("rsa-sha2-256", value[1:]).encode(), data)
    with pytest.raises(InvalidSignatureError):
        verify(our(rsa_key), Signature("rsa-sha2-256", b"\0" + value).encode(), data)


@pytest.mark.parametrize("curve", Curve)
def test_ecdsa(curve: Curve):
    theirs, key = ecdsa_key(curve)
    r, s = decode_dss_signature(theirs.sign(DATA, ec.ECDSA(ECDSA_HASHES[curve.hash_name])))
    size = curve.coordinate_size
    raw = r.to_bytes(size, "big") + s.to_bytes(size, "big")
    blob = verified_ecdsa(key, raw, DATA).encode()
    assert blob == Signature(key.algorithm, bytes(Writer().mpint(r).mpint(s))).encode()
    verify(key, blob, DATA)
    with pytest.raises(InvalidSignatureError, match="does not match"):
        verify(key, blob, DATA + b"!")
    with pytest.raises(InvalidSignatureError, match="does not match"):
        verified_ecdsa(key, raw, DATA + b"!")


def test_ecdsa_with_halves_that_are_short():
    assert ecdsa_signature(Curve.NISTP256, 1, 255).value.hex() == "00000001010000000200ff"
    _, key = ecdsa_key(Curve.NISTP256)
    with pytest.raises(InvalidSignatureError, match="does not match"):  # a signature, though of nothing
        verified_ecdsa(key, b"\x01\xff", DATA)


@pytest.mark.parametrize("raw", [b"", bytes(63), bytes(64), b"\0\1", b"\1\0", b"\1" * 66])
def test_what_is_no_ecdsa_signature(raw: bytes):
    with pytest.raises(InvalidSignatureError, match="not an ECDSA signature"):
        verified_ecdsa(ecdsa_key(Curve.NISTP256)[1], raw, DATA)


def test_ecdsa_with_more_than_two_numbers():
    theirs, key = ecdsa_key(Curve.NISTP256)
    r, s = decode_dss_signature(theirs.sign(DATA, ec.ECDSA(hashes.SHA256())))
    value = bytes(Writer().mpint(r).mpint(s).mpint(1))
    with pytest.raises(InvalidSignatureError, match="too many"):
        verify(key, Signature(key.algorithm, value).encode(), DATA)


def test_ed25519():
    theirs = ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"seed").digest())
    key = Ed25519PublicKey(theirs.public_key().public_bytes_raw())
    blob = Signature("ssh-ed25519", theirs.sign(DATA)).encode()
    verify(key, blob, DATA)
    with pytest.raises(InvalidSignatureError, match="does not match"):
        verify(key, blob, b"")
    with pytest.raises(InvalidSignatureError, match="too many"):
        verify(key, blob + b"\0", DATA)


def test_the_algorithm_must_be_one_of_the_key(rsa_key: rsa.RSAPrivateKey):
    _, p256 = ecdsa_key(Curve.NISTP256)
    for key, algorithm in (
        (our(rsa_key), "ssh-ed25519"),
        (our(rsa_key), "rsa-sha2-384"),
        (p256, "ecdsa-sha2-nistp384"),
        (Ed25519PublicKey(bytes(32)), "ssh-rsa"),
    ):
        with pytest.raises(InvalidSignatureError, match=algorithm):
            verify(key, Signature(algorithm, b"\1" * 64).encode(), DATA)


def test_a_key_off_its_curve_verifies_nothing():
    key = EcdsaPublicKey(Curve.NISTP256, b"\4" + b"\1" * 64)
    with pytest.raises(InvalidSignatureError, match="not on nistp256"):
        verify(key, ecdsa_signature(Curve.NISTP256, 1, 1).encode(), DATA)
    with pytest.raises(InvalidSignatureError, match="not on nistp256"):
        verified_ecdsa(key, b"\1\1", DATA)


def test_flags():
    assert [rsa_algorithm(flags) for flags in (0, 2, 4, 6)] == [
        "ssh-rsa",
        "rsa-sha2-256",
        "rsa-sha2-512",
        "rsa-sha2-256",
    ]


@pytest.mark.parametrize("flags", [1, 3, 8, 2**31])
def test_flags_that_are_not_known(flags: int):
    with pytest.raises(ProtocolError, match=hex(flags)):
        rsa_algorithm(flags)
