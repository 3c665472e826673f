"""SSH keys from what tokens hold: every form of curve and point, certificates, and what is left out."""

from __future__ import annotations

import datetime
import logging
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from doubles.stand_ins import Key

from replug.protocol.keys import Curve, EcdsaPublicKey, Ed25519PublicKey, RsaPublicKey
from replug.token.identity import LONGEST_LABEL
from replug.token.keys import LeftOut, TokenKey, log_left_out, read_keys, reading
from replug.token.worker.frames import Header

CURVES = {
    Curve.NISTP256: ("06082a8648ce3d030107", ec.SECP256R1(), "0441"),
    Curve.NISTP384: ("06052b81040022", ec.SECP384R1(), "0461"),
    Curve.NISTP521: ("06052b81040023", ec.SECP521R1(), "048185"),
}
"""DER of the curve's OID, the curve, and the DER header of an OCTET STRING that holds a point of it."""
ED25519_OID = "06032b6570"
ED25519_NAME = "130c656477617264733235353139"


def record(kind: str, *material: bytes | str, **fields: Any) -> Header:
    """A key as a worker reports it."""
    parts = [part if isinstance(part, str) else part.hex() for part in material]
    defaults = {
        "label": "label",
        "id": "0a0b",
        "reference": "reference",
        "signs": False,
        "always_authenticate": False,
        "mechanism": True,
    }
    return defaults | {"kind": kind, "material": parts} | fields


def certificate(public_key: Any, subject: x509.Name | None = None) -> bytes:
    """An X.509 certificate for the key, in DER."""
    issuer = ec.generate_private_key(ec.SECP256R1())
    today = datetime.datetime(2024, 1, 1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject if subject is not None else x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(public_key)
        .serial_number(1)
        .not_valid_before(today)
        .not_valid_after(today + datetime.timedelta(days=1))
    )
    return builder.sign(issuer, hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize("kind", ["ec", "edwards"])
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("curve", Curve)
def test_points_on_nist_curves(curve: Curve, wrapped: bool, kind: str) -> None:
    parameters, group, header = CURVES[curve]
    point = (
        ec.generate_private_key(group)
        .public_key()
        .public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    )
    [key] = read_keys(
        [record(kind, parameters, bytes.fromhex(header) + point if wrapped else point)]
    ).values()
    assert key.public == EcdsaPublicKey(curve, point)
    assert key.blob == key.public.encode()


@pytest.mark.parametrize("kind", ["ec", "edwards"])
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("parameters", [ED25519_OID, ED25519_NAME])
def test_points_on_the_edwards_curve(parameters: str, wrapped: bool, kind: str) -> None:
    point = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    [key] = read_keys([record(kind, parameters, b"\x04\x20" + point if wrapped else point)]).values()
    assert key.public == Ed25519PublicKey(point)


def test_an_rsa_modulus_may_have_leading_zeros() -> None:
    numbers = rsa.generate_private_key(65537, 2048).public_key().public_numbers()
    [key] = read_keys([record("rsa", b"\0" + numbers.n.to_bytes(256, "big"), "00010001")]).values()
    assert key.public == RsaPublicKey(e=65537, n=numbers.n)


P256_POINT = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
)
P256 = CURVES[Curve.NISTP256][0]

UNUSABLE = {
    "secp256k1": record("ec", "06052b8104000a", P256_POINT),
    "explicit parameters": record("ec", "3081f7", P256_POINT),
    "X25519": record("edwards", "130a63757276653235353139", bytes(32)),
    "a point that is too short": record("ec", P256, P256_POINT[:-1]),
    "a point that is too long": record("ec", P256, P256_POINT + b"\0"),
    "a compressed point": record("ec", P256, b"\2" + P256_POINT[1:33]),
    "a point that is not on the curve": record("ec", P256, P256_POINT[:-1] + bytes([P256_POINT[-1] ^ 1])),
    "a point in another type's wrapping": record("ec", P256, b"\x03\x41" + P256_POINT),
    "a wrapping of another length": record("ec", P256, b"\x04\x40" + P256_POINT),
    "an empty wrapping": record("ec", P256, b"\x04\x41"),
    "Ed25519 of 31 bytes": record("edwards", ED25519_OID, bytes(31)),
    "RSA of 512 bits": record("rsa", (2**511 + 1).to_bytes(64, "big"), "010001"),
    "an even RSA modulus": record("rsa", (2**2047).to_bytes(256, "big"), "010001"),
    "an RSA exponent of 1": record("rsa", (2**2047 + 1).to_bytes(256, "big"), "01"),
    "another kind of key": record("gost", "00"),
    "bytes that are no certificate": record("x509", b"\x30\x03abc"),
    "an empty certificate": record("x509", b""),
    "a certificate for DSA": record("x509", certificate(dsa.generate_private_key(1024).public_key())),
    "a certificate for Ed448": record("x509", certificate(ed448.Ed448PrivateKey.generate().public_key())),
    "a certificate for X25519": record("x509", certificate(x25519.X25519PrivateKey.generate().public_key())),
    "a certificate for secp256k1": record(
        "x509", certificate(ec.generate_private_key(ec.SECP256K1()).public_key())
    ),
    "a certificate of a version that does not exist": record(
        "x509",
        certificate(Key(kind="p256").private.public_key()).replace(
            bytes.fromhex("a003020102"), bytes.fromhex("a003020107"), 1
        ),
    ),
}


@pytest.mark.filterwarnings("ignore:SSH DSA key support is deprecated")
@pytest.mark.parametrize("unusable", UNUSABLE)
def test_what_ssh_cannot_use_is_left_out_and_costs_no_other_key(
    unusable: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, keys, left_out = Key("good"), {}, []
    for _ in reading([UNUSABLE[unusable] | {"label": "bad"}, good.record()], keys, left_out):
        pass
    assert list(keys) == [good.blob]
    assert [key.label for key in left_out] == ["bad"]
    with caplog.at_level(logging.INFO, "replug"):
        log_left_out(left_out, "token")
    [line] = caplog.records
    assert line.message == f"left out a key: {left_out[0].reason}"
    assert vars(line)["label"] == "bad"


@pytest.mark.parametrize(
    ("kind", "mechanism"), [("rsa", "CKM_RSA_PKCS"), ("p256", "CKM_ECDSA"), ("ed25519", "CKM_EDDSA")]
)
def test_a_key_that_the_module_cannot_sign_with_is_left_out(kind: str, mechanism: str) -> None:
    key, keys, left_out = Key("unable", kind), {}, []
    for _ in reading([key.record() | {"mechanism": False}], keys, left_out):
        pass
    assert keys == {}
    reason = f"the module has no mechanism for signatures of {key.public.algorithm} keys ({mechanism})"
    assert left_out == [LeftOut("unable", reason)]


SUBJECT = x509.Name(
    [
        x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Müller & Söhne"),
        x509.NameAttribute(NameOID.COMMON_NAME, "alice"),
    ]
)


@pytest.mark.parametrize("kind", ["ed25519", "p256", "rsa"])
def test_a_certificate_stands_for_its_key_and_is_named_by_its_subject(kind: str) -> None:
    held = Key(kind=kind)
    found = read_keys([record("x509", certificate(held.private.public_key(), SUBJECT), label="ignored")])
    [key] = found.values()
    assert key.public == held.public
    assert key.label == "/C=DE/O=Müller & Söhne/CN=alice"


@pytest.mark.parametrize(
    ("label", "shown"), [("work\0key", "work"), ("\0", ""), ("a\ud800b", "a?b"), ("Schlüssel", "Schlüssel")]
)
def test_a_label_that_no_client_could_read_does_not_spoil_the_list(label: str, shown: str) -> None:
    """ssh-add refuses a whole list for one comment with a NUL byte in it."""
    [key] = read_keys([Key(label).record()]).values()
    assert key.label == shown
    assert key.label.encode().decode() == shown


def test_a_certificate_without_a_subject_has_no_label() -> None:
    [key] = read_keys([record("x509", certificate(Key().private.public_key()))]).values()
    assert key.label == ""


def test_a_subject_of_very_many_names_is_not_read() -> None:
    """It would take as long as a hundred keys, and others wait meanwhile."""
    units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, f"unit {number}") for number in range(900)]
    held = Key()
    [key] = read_keys([record("x509", certificate(held.private.public_key(), x509.Name(units)))]).values()
    assert key.public == held.public
    assert key.label == ""


def test_what_the_token_says_of_a_key() -> None:
    held = Key("label")
    fields = {"id": "", "reference": "r", "signs": True, "always_authenticate": True, "label": ""}
    [key] = read_keys([held.record() | fields]).values()
    assert (key.key_id, key.reference, key.signs, key.always_authenticate, key.label) == (
        b"",
        "r",
        True,
        True,
        "",
    )


def test_keys_keep_the_tokens_order() -> None:
    held = [Key(), Key(kind="p256"), Key()]
    assert list(read_keys([key.record() for key in held])) == [key.blob for key in held]


def test_of_a_key_and_its_certificate_the_first_names_it() -> None:
    held = Key("login")
    of_certificate = record("x509", certificate(held.private.public_key(), SUBJECT))
    [key] = read_keys([held.record(private_visible=False), of_certificate]).values()
    assert key.label == "login"


def test_of_a_key_and_its_certificate_the_one_that_can_sign_is_used() -> None:
    held = Key("login")
    of_certificate = record(
        "x509", certificate(held.private.public_key(), SUBJECT), signs=True, reference="certificate"
    )
    [key] = read_keys([held.record(private_visible=False), of_certificate]).values()
    assert (key.signs, key.reference) == (True, "certificate")


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"kind": "x509", "material": [], "label": ""},
        {"kind": "rsa", "material": ["01"], "label": ""},
        {"kind": "rsa", "material": None, "label": 5},
        {"kind": "edwards", "material": [7, 7], "label": ""},
    ],
    ids=["nothing", "no certificate", "half a key", "no list", "no text"],
)
def test_what_makes_no_sense_is_left_out(record: Header) -> None:
    """A worker that a module has taken over may say anything."""
    assert read_keys([record]) == {}


@pytest.mark.parametrize("much", [{"id": "00" * 2000}, {"reference": "r" * 2000}, {"reference": []}])
def test_what_is_kept_of_a_key_is_bounded(much: dict[str, Any]) -> None:
    """A module shows 512 keys of each of 128 tokens, and may have taken over its worker."""
    key = Key("key").record() | {"label": "l" * 5000} | much
    keys: dict[bytes, TokenKey] = {}
    left_out: list[LeftOut] = []
    for _ in reading([key, {"label": "l" * 5000, "kind": "k" * 5000, "material": []}], keys, left_out):
        pass
    assert keys == {}
    assert [len(one.label) <= LONGEST_LABEL for one in left_out] == [True] * 2
    assert all(len(one.reason) <= 300 for one in left_out)
