"""Public key blobs: what is a key, what its name and fingerprint are."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from replug.protocol.certificates import Certificate
from replug.protocol.constants import FINGERPRINT_HASHES
from replug.protocol.keys import (
    Curve,
    EcdsaPublicKey,
    Ed25519PublicKey,
    RsaPublicKey,
    SkPublicKey,
    blob_algorithm,
    certificate_algorithm,
    fingerprint,
    is_certificate,
    parse_public_key,
    plain_algorithm,
)
from replug.protocol.wire import ProtocolError, Writer

# Made by ssh-keygen; the fingerprints are what ssh-keygen -l prints.
ED25519 = base64.b64decode("AAAAC3NzaC1lZDI1NTE5AAAAIIzN5bXQJohUgq3P4cSNBxM9WrBc0HYdJUGXCssnP5ue")
ECDSA = base64.b64decode(
    "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBOvTSRdXXASGPDYjFXyvZYayREwjTpil2DI7G1SvyiD3jtHl"
    "QpzajdiATSq/oFWHxFzUyFxZggC+/laICNz4xPw="
)
CERTIFICATE = base64.b64decode(
    "AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29tAAAAIBQUQd4c/lKY8D3ch3mv/nMGN8qCd2XR+KSBRi671nSnAAAA"
    "IIzN5bXQJohUgq3P4cSNBxM9WrBc0HYdJUGXCssnP5ueAAAAAAAAAAAAAAABAAAAAWkAAAAAAAAAAAAAAAD//////////wAAAAAA"
    "AACCAAAAFXBlcm1pdC1YMTEtZm9yd2FyZGluZwAAAAAAAAAXcGVybWl0LWFnZW50LWZvcndhcmRpbmcAAAAAAAAAFnBlcm1pdC1w"
    "b3J0LWZvcndhcmRpbmcAAAAAAAAACnBlcm1pdC1wdHkAAAAAAAAADnBlcm1pdC11c2VyLXJjAAAAAAAAAAAAAABoAAAAE2VjZHNh"
    "LXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBOvTSRdXXASGPDYjFXyvZYayREwjTpil2DI7G1SvyiD3jtHlQpzajdiATSq/"
    "oFWHxFzUyFxZggC+/laICNz4xPwAAABlAAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAABKAAAAIQCLApC1NaF9ZK18BEJnfhyAoSVa"
    "GNIxDT31rShZ147pqwAAACEArEqcTDLuboMjw8jlbbVktImW4gjQZq5OAaZMeYcD6c0="
)
ED25519_SHA256 = "SHA256:pqnbL7y/h7pmb+Z9RHehaaoqhO3jfqkcRExvq1Ukulc"
ED25519_MD5 = "MD5:20:b8:6d:90:5f:cb:4f:2d:ca:c9:59:66:48:04:27:f4"
N = 2**2047 + 1


def blob(algorithm: str, *fields: bytes) -> bytes:
    return bytes(Writer().text(algorithm).strings(fields))


def test_fingerprints_are_those_of_ssh_keygen():
    assert fingerprint(ED25519) == ED25519_SHA256
    assert fingerprint(ED25519, "md5") == ED25519_MD5
    assert fingerprint(ECDSA) == "SHA256:Ka1i/OEc/C56CN+mTO5UdrjuibY59dAMjFANMJNiDb8"
    assert fingerprint(ECDSA, "md5") == "MD5:e5:7f:56:b6:03:37:0a:e5:5b:c2:30:8b:ef:99:d2:d3"


def test_a_certificate_has_the_fingerprint_of_its_key():
    assert fingerprint(CERTIFICATE) == ED25519_SHA256
    assert fingerprint(CERTIFICATE, "md5") == ED25519_MD5


def test_bytes_that_are_no_key_have_a_fingerprint_too():
    assert fingerprint(b"") == "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"


@pytest.mark.parametrize("name", FINGERPRINT_HASHES)
def test_every_hash_of_ssh_keygen_makes_fingerprints(name: str, tmp_path: Path) -> None:
    public = tmp_path / "key.pub"
    public.write_text(f"ssh-ed25519 {base64.b64encode(ED25519).decode()}\n")
    done = subprocess.run(
        ["ssh-keygen", "-l", "-E", name, "-f", public], capture_output=True, text=True, check=True
    )
    assert fingerprint(ED25519, name) == done.stdout.split()[1]


def test_keys_come_from_blobs_and_go_back():
    assert type(parse_public_key(ED25519)) is Ed25519PublicKey
    assert parse_public_key(ED25519).encode() == ED25519
    ecdsa = parse_public_key(ECDSA)
    assert isinstance(ecdsa, EcdsaPublicKey)
    assert (ecdsa.curve, ecdsa.encode()) == (Curve.NISTP256, ECDSA)
    assert parse_public_key(RsaPublicKey(65537, N).encode()) == RsaPublicKey(65537, N)


def test_names_of_certificates():
    names = {
        "ssh-rsa": "ssh-rsa-cert-v01@openssh.com",
        "ecdsa-sha2-nistp521": "ecdsa-sha2-nistp521-cert-v01@openssh.com",
        "ssh-ed25519": "ssh-ed25519-cert-v01@openssh.com",
        "sk-ssh-ed25519@openssh.com": "sk-ssh-ed25519-cert-v01@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com": "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
    }
    for plain, certified in names.items():
        assert (is_certificate(plain), is_certificate(certified)) == (False, True)
        assert (plain_algorithm(plain), plain_algorithm(certified)) == (plain, plain)
    ed25519 = Ed25519PublicKey(bytes(32))
    assert certificate_algorithm(ed25519) == names["ssh-ed25519"]
    assert certificate_algorithm(SkPublicKey(ed25519, "ssh:")) == names["sk-ssh-ed25519@openssh.com"]
    assert blob_algorithm(CERTIFICATE) == Certificate.decode(CERTIFICATE).algorithm == names["ssh-ed25519"]


@pytest.mark.parametrize(
    ("e", "n", "reason"),
    [
        (3, 2**1023 - 1, "1023 bits"),
        (3, 2**16384 + 1, "16385 bits"),
        (65538, N, "impossible"),
        (1, N, "impossible"),
        (N, N, "impossible"),
        (3, N + 1, "impossible"),
        (2**256 + 1, N, "exponent of 257 bits"),
    ],
    ids=["small", "large", "even exponent", "exponent 1", "exponent n", "even modulus", "huge exponent"],
)
def test_impossible_rsa_keys(e: int, n: int, reason: str):
    with pytest.raises(ProtocolError, match=reason):
        parse_public_key(bytes(Writer().text("ssh-rsa").mpint(e).mpint(n)))


@pytest.mark.parametrize("bits", [1024, 16384])
def test_the_smallest_and_the_largest_rsa_key(bits: int):
    key = RsaPublicKey(3, 2**bits - 1)
    assert parse_public_key(key.encode()) == key
    assert repr(key) == f"RsaPublicKey({fingerprint(key.encode())})"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (blob("ssh-dss"), "ssh-dss is not supported"),
        (blob("ssh-ed25519", bytes(31)), "31 bytes"),
        (blob("ssh-ed25519", bytes(33)), "33 bytes"),
        (blob("ssh-ed25519", bytes(32), b""), "4 bytes too many"),
        (blob("ecdsa-sha2-nistp256", b"nistp384", b"\4" + bytes(96)), "curve nistp384"),
        (blob("ecdsa-sha2-nistp256", b"nistp256", b"\4" + bytes(63)), "not an uncompressed point"),
        (blob("ecdsa-sha2-nistp256", b"nistp256", b"\2" + bytes(32)), "not an uncompressed point"),
        (blob("ecdsa-sha2-nistp256", b"nistp256", b"\6" + bytes(64)), "not an uncompressed point"),
        (blob("ecdsa-sha2-nistp256", b"nistp256", b""), "not an uncompressed point"),
        (blob("sk-ssh-ed25519@openssh.com", bytes(32), b"ssh:"), "not supported here"),
        (CERTIFICATE, "not supported"),
    ],
)
def test_blobs_that_are_no_public_key(data: bytes, reason: str):
    with pytest.raises(ProtocolError, match=reason):
        parse_public_key(data)


@pytest.mark.parametrize(
    ("curve", "other"),
    [
        (Curve.NISTP256, ec.SECP256R1()),
        (Curve.NISTP384, ec.SECP384R1()),
        (Curve.NISTP521, ec.SECP521R1()),
    ],
)
def test_points_on_and_off_the_curve(curve: Curve, other: ec.EllipticCurve):
    theirs = ec.derive_private_key(12345, other).public_key()
    point = theirs.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert EcdsaPublicKey(curve, point).to_cryptography() == theirs
    EcdsaPublicKey(curve, point).validate()
    with pytest.raises(ProtocolError, match="not on nistp"):
        EcdsaPublicKey(curve, point[:-1] + bytes((point[-1] ^ 1,))).validate()


def test_ed25519_and_rsa_for_cryptography():
    theirs = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    assert Ed25519PublicKey(theirs.public_bytes_raw()).to_cryptography() == theirs
    numbers = RsaPublicKey(65537, N).to_cryptography().public_numbers()
    assert (numbers.e, numbers.n) == (65537, N)


def test_a_fido_key_is_on_p256():
    with pytest.raises(ProtocolError, match="FIDO key on nistp384"):
        SkPublicKey(EcdsaPublicKey(Curve.NISTP384, b"\4" + bytes(96)), "ssh:")
