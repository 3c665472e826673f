"""Turns what a worker found on a token into SSH keys.

A key's identity is its public key. Curves come as DER parameters, points bare or inside an OCTET STRING,
and a token may hold only the X.509 certificate; modules differ in all of this.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from replug.protocol.keys import (
    Curve,
    EcdsaPublicKey,
    Ed25519PublicKey,
    PublicKey,
    RsaPublicKey,
    parse_public_key,
)
from replug.protocol.wire import ProtocolError
from replug.token.identity import LONGEST_LABEL

log = logging.getLogger(__name__)

LONGEST_ID = 1024  # bytes of a CKA_ID
LONGEST_REFERENCE = 256  # characters of the name that a worker has for a key
_LONGEST_REASON = 300  # characters
_ED25519_SIGNATURE = 64  # bytes

_CURVES = {
    "06082a8648ce3d030107": Curve.NISTP256,
    "06052b81040022": Curve.NISTP384,
    "06052b81040023": Curve.NISTP521,
}
_FIELD_PRIMES = {
    Curve.NISTP256: 2**256 - 2**224 + 2**192 + 2**96 - 1,
    Curve.NISTP384: 2**384 - 2**128 - 2**96 + 2**32 - 1,
    Curve.NISTP521: 2**521 - 1,
}
_SEQUENCE = b"\x30"
_ED25519 = (
    "06032b6570",  # OID 1.3.101.112 (RFC 8410)
    "130c656477617264733235353139",  # PrintableString "edwards25519"
)
_OCTET_STRING = 0x04
_LONGEST_NAMED = 4096
"""Bytes of a certificate whose subject is read."""
_MOST_SAID = 5  # lines about keys that are left out

KeyRecord = dict[str, Any]
"""What a worker reports about a key; it may hold anything, as a worker may have been taken over."""


@dataclass(frozen=True)
class TokenKey:
    """A key on a token: the public half, and what the token reports about the private one."""

    public: PublicKey
    blob: bytes
    """The public key in SSH wire form; equal blobs are the same key."""
    label: str
    """CKA_LABEL, or the subject where there is only a certificate; UTF-8 without NUL, may be empty."""
    key_id: bytes
    """CKA_ID; may be empty."""
    reference: str
    """The name workers use for this key."""
    signs: bool
    """A private key that may sign is visible (before login it usually is not)."""
    always_authenticate: bool
    """CKA_ALWAYS_AUTHENTICATE: every signature needs the PIN again."""

    @cached_property
    def signature_size(self) -> int:
        """How many bytes C_Sign returns."""
        match self.public:
            case RsaPublicKey(n=n):
                return (n.bit_length() + 7) // 8
            case EcdsaPublicKey(curve=curve):
                return 2 * curve.coordinate_size
        return _ED25519_SIGNATURE


@dataclass(frozen=True)
class LeftOut:
    """A key of a token that is not offered, because no signature could be made or used."""

    label: str
    """CKA_LABEL, as the token has it."""
    reason: str


def read_keys(records: list[KeyRecord]) -> dict[bytes, TokenKey]:
    """The keys that SSH can use, by blob, in the token's order."""
    keys: dict[bytes, TokenKey] = {}
    for _ in reading(records, keys, []):
        pass
    return keys


def reading(records: list[KeyRecord], keys: dict[bytes, TokenKey], left_out: list[LeftOut]) -> Iterator[None]:
    """Read `records` into `keys`, with a pause after each: there may be many, and others want their turn."""
    for record in records:
        yield
        try:
            key = _read_key(record)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # A compromised worker may send anything.
            left_out.append(LeftOut(_label_of(record), str(error)[:_LONGEST_REASON]))
            continue
        if not record.get("mechanism", False):
            left_out.append(LeftOut(key.label, _no_mechanism(key.public)))
            continue
        # A certificate and a public key object of one key give the same blob; the first one names it.
        known = keys.get(key.blob)
        if known is None or (key.signs and not known.signs):
            keys[key.blob] = key


def without_private_key(keys: dict[bytes, TokenKey]) -> list[LeftOut]:
    """Those that cannot sign, of the keys that a logged-in session has shown."""
    return [
        LeftOut(key.label, "it has no private key that may sign") for key in keys.values() if not key.signs
    ]


def log_left_out(left_out: list[LeftOut], token: str) -> None:
    """Log which keys of `token` are not offered."""
    for key in left_out[:_MOST_SAID]:
        log.info("left out a key: %s", key.reason, extra={"token": token, "label": key.label})
    if len(left_out) > _MOST_SAID:
        log.info("left out more keys", extra={"token": token, "keys": len(left_out) - _MOST_SAID})


def _no_mechanism(public: PublicKey) -> str:
    mechanism = {"RsaPublicKey": "CKM_RSA_PKCS", "EcdsaPublicKey": "CKM_ECDSA"}.get(
        type(public).__name__, "CKM_EDDSA"
    )
    return f"the module has no mechanism for signatures of {public.algorithm} keys ({mechanism})"


def _label_of(record: KeyRecord) -> str:
    return str(record.get("label", ""))[:LONGEST_LABEL] if isinstance(record, dict) else ""


def _read_key(record: KeyRecord) -> TokenKey:
    material = [bytes.fromhex(part) for part in record["material"]]
    label = str(record["label"])
    match record["kind"]:
        case "rsa":
            modulus, exponent = (int.from_bytes(part, "big") for part in material)
            public: PublicKey = RsaPublicKey(e=exponent, n=modulus)
        case "ec" | "edwards":
            public = _read_curve_key(*material)
        case "x509":
            public, label = _read_certificate(material[0])
        case kind:
            raise ProtocolError(f"unknown kind of key {kind!r}")
    public.validate()
    key_id, reference = bytes.fromhex(record["id"]), record["reference"]
    if len(key_id) > LONGEST_ID or not isinstance(reference, str) or len(reference) > LONGEST_REFERENCE:
        raise ProtocolError("its CKA_ID is too long")
    return TokenKey(
        public=public,
        blob=public.encode(),
        label=_as_text(label),
        key_id=key_id,
        reference=reference,
        signs=bool(record["signs"]),
        always_authenticate=bool(record["always_authenticate"]),
    )


def _as_text(label: str) -> str:
    """The label up to a NUL, as C programs read it, in valid UTF-8: it must not break the list of keys."""
    return label.partition("\0")[0][:LONGEST_LABEL].encode(errors="replace").decode()


def _read_curve_key(parameters: bytes, point: bytes) -> PublicKey:
    if parameters.hex() in _ED25519:
        return Ed25519PublicKey(_unwrap_point(point, 32))
    curve = _CURVES.get(parameters.hex()) or _explicit_curve(parameters)
    if curve is None:
        raise ProtocolError(f"curve {parameters.hex()[:40]} is not one that SSH supports")
    return EcdsaPublicKey(curve, _unwrap_point(point, 1 + 2 * curve.coordinate_size))


def _explicit_curve(parameters: bytes) -> Curve | None:
    """The curve of explicit parameters (X9.62 SpecifiedECDomain), as libykcs11 sends them, by its field.

    The point is checked afterwards to lie on that curve, which a point of another curve does not.
    """
    for curve, prime in _FIELD_PRIMES.items():
        if parameters.startswith(_SEQUENCE) and prime.to_bytes(curve.coordinate_size, "big") in parameters:
            return curve
    return None


def _unwrap_point(point: bytes, size: int) -> bytes:
    if len(point) == size:
        return point
    header = bytes([_OCTET_STRING, size]) if size < 0x80 else bytes([_OCTET_STRING, 0x81, size])
    if point[: len(header)] == header and len(point) == len(header) + size:
        return point[len(header) :]
    raise ProtocolError(f"a point of {len(point)} bytes, where the curve has {size}")


def _read_certificate(der: bytes) -> tuple[PublicKey, str]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        certificate = x509.load_der_x509_certificate(der)
        line = certificate.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    except Exception as error:
        # A token may hold any bytes here, and the library raises many exceptions, not all documented.
        raise ProtocolError(f"a certificate without an SSH key: {type(error).__name__}: {error}") from error
    if len(der) > _LONGEST_NAMED:
        # Its subject may have hundreds of names, and takes as long to read as a hundred such keys.
        return parse_public_key(base64.b64decode(line.split()[1])), ""
    subject = "".join(
        f"/{attribute.rfc4514_attribute_name}={attribute.value!s}" for attribute in certificate.subject
    )
    return parse_public_key(base64.b64decode(line.split()[1])), subject
