"""Public keys and their blobs: RFC 4253 section 6.6 (RSA), RFC 5656 (ECDSA), RFC 8709 (Ed25519).

Constructing a key that cannot occur on the wire raises `ProtocolError`.
`cryptography` is imported when a key is first used, because the import is slow.
"""

from __future__ import annotations

import base64
import hashlib
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from replug.protocol.constants import (
    FINGERPRINT_HASHES,
    MAX_RSA_BITS,
    MAX_RSA_EXPONENT_BITS,
    MIN_RSA_BITS,
    MLDSA44_PUBLIC_SIZE,
)
from replug.protocol.visible_text import visible
from replug.protocol.wire import ProtocolError, Reader, Writer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PublicKey as CryptographyEd25519PublicKey,
    )
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey as CryptographyRsaPublicKey

    from replug.protocol import composite

_CERTIFICATE_MARK = "-cert-v01@openssh.com"
_SK_MARK = "@openssh.com"
_OF_CERTIFICATES = {
    "ssh-mldsa44-ed25519-cert": "ssh-mldsa44-ed25519",
    "ssh-mldsa44-ed25519-cert-v01@openssh.com": "ssh-mldsa44-ed25519@openssh.com",
}
"""The key's name by that of its certificates, where they are not formed as those of the older types."""
_CERTIFICATES_OF = {plain: certificate for certificate, plain in _OF_CERTIFICATES.items()}
_COORDINATE_SIZES = {"nistp256": 32, "nistp384": 48, "nistp521": 66}
_CURVE_HASHES = {"nistp256": "sha256", "nistp384": "sha384", "nistp521": "sha512"}
ED25519_SIZE = 32
"""Bytes of an Ed25519 public key, and of the seed of a private one."""
COMPOSITE_SECRET_SIZE = 2 * ED25519_SIZE
"""Bytes of both seeds of a `CompositePublicKey`'s private key."""


class Curve(Enum):
    """A NIST curve; the value is its name on the wire (RFC 5656 section 10.1)."""

    NISTP256 = "nistp256"
    NISTP384 = "nistp384"
    NISTP521 = "nistp521"

    @cached_property
    def coordinate_size(self) -> int:
        """Bytes of one coordinate, and of r and of s in a raw signature."""
        return _COORDINATE_SIZES[self._value_]

    @cached_property
    def hash_name(self) -> str:
        """The hash an ECDSA signature on this curve uses, as hashlib names it (RFC 5656 section 6.2.1)."""
        return _CURVE_HASHES[self._value_]


class _Key(ABC):
    """Common to all public keys."""

    @property
    @abstractmethod
    def algorithm(self) -> str:
        """The name at the start of the blob, such as "ssh-ed25519"."""

    @abstractmethod
    def write_fields(self, writer: Writer) -> None:
        """Put the fields that follow the name in a blob, and the nonce in a certificate."""

    def __repr__(self) -> str:
        # Not the numbers: Python refuses to print those of the largest RSA keys.
        return f"{type(self).__name__}({fingerprint(self.encode())})"

    def encode(self) -> bytes:
        """Return the public key blob."""
        writer = Writer().text(self.algorithm)
        self.write_fields(writer)
        return bytes(writer)


@dataclass(frozen=True, repr=False)
class RsaPublicKey(_Key):
    """An RSA key: the exponent `e` and the modulus `n`, both odd, `n` of 1024 to 16384 bits."""

    e: int
    n: int

    def __post_init__(self) -> None:
        if not MIN_RSA_BITS <= self.n.bit_length() <= MAX_RSA_BITS:
            raise ProtocolError(f"RSA key of {self.n.bit_length()} bits")
        if not (self.n % 2 and self.e % 2 and 1 < self.e < self.n):
            raise ProtocolError("impossible RSA exponent or modulus")
        if self.e.bit_length() > MAX_RSA_EXPONENT_BITS:
            raise ProtocolError(f"RSA exponent of {self.e.bit_length()} bits")

    @property
    def algorithm(self) -> str:
        """The name "ssh-rsa", whatever hash it signs with."""
        return "ssh-rsa"

    def write_fields(self, writer: Writer) -> None:
        writer.mpint(self.e).mpint(self.n)

    @classmethod
    def read_fields(cls, reader: Reader) -> RsaPublicKey:
        return cls(e=reader.mpint(), n=reader.mpint())

    def to_cryptography(self) -> CryptographyRsaPublicKey:
        """Return the key as a `cryptography` object."""
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

        return RSAPublicNumbers(self.e, self.n).public_key()

    def validate(self) -> None:
        """Do nothing: the constructor has made every check there is."""


@dataclass(frozen=True, repr=False)
class EcdsaPublicKey(_Key):
    """A key on a NIST curve: its point uncompressed, 4 || x || y, so 65, 97 or 133 bytes."""

    curve: Curve
    point: bytes

    def __post_init__(self) -> None:
        if len(self.point) != 1 + 2 * self.curve.coordinate_size or self.point[0] != 4:
            raise ProtocolError(f"not an uncompressed point on {self.curve.value}")

    @cached_property
    def algorithm(self) -> str:
        """The name "ecdsa-sha2-" and the curve."""
        return f"ecdsa-sha2-{self.curve.value}"

    def write_fields(self, writer: Writer) -> None:
        writer.text(self.curve.value).string(self.point)

    @classmethod
    def read_fields(cls, curve: Curve, reader: Reader) -> EcdsaPublicKey:
        """Take the curve's name, which must be `curve`'s, and the point."""
        name = reader.name()
        if name != curve.value:
            raise ProtocolError(f"curve {visible(name)} in a key on {curve.value}")
        return cls(curve, reader.string())

    def to_cryptography(self) -> EllipticCurvePublicKey:
        """Return the key as a `cryptography` object; `ProtocolError` if the point is not on the curve."""
        from cryptography.hazmat.primitives.asymmetric import ec

        curves = {
            Curve.NISTP256: ec.SECP256R1(),
            Curve.NISTP384: ec.SECP384R1(),
            Curve.NISTP521: ec.SECP521R1(),
        }
        try:
            return ec.EllipticCurvePublicKey.from_encoded_point(curves[self.curve], self.point)
        except ValueError as error:
            raise ProtocolError(f"the point is not on {self.curve.value}") from error

    def validate(self) -> None:
        """Raise `ProtocolError` if the point is not on the curve."""
        self.to_cryptography()


@dataclass(frozen=True, repr=False)
class Ed25519PublicKey(_Key):
    """An Ed25519 key: its point, 32 bytes."""

    point: bytes

    def __post_init__(self) -> None:
        if len(self.point) != ED25519_SIZE:
            raise ProtocolError(f"Ed25519 key of {len(self.point)} bytes")

    @property
    def algorithm(self) -> str:
        """The name "ssh-ed25519"."""
        return "ssh-ed25519"

    def write_fields(self, writer: Writer) -> None:
        writer.string(self.point)

    @classmethod
    def read_fields(cls, reader: Reader) -> Ed25519PublicKey:
        return cls(reader.string())

    def to_cryptography(self) -> CryptographyEd25519PublicKey:
        """Return the key as a `cryptography` object."""
        from cryptography.hazmat.primitives.asymmetric import ed25519

        return ed25519.Ed25519PublicKey.from_public_bytes(self.point)

    def validate(self) -> None:
        """Do nothing: any 32 bytes are accepted; a bad point fails when it verifies (RFC 8032)."""


@dataclass(frozen=True, repr=False)
class CompositePublicKey(_Key):
    """An ML-DSA-44 and an Ed25519 key: their public numbers, 1312 and 32 bytes [ssh-mldsa-eddsa.c]."""

    name: str
    numbers: bytes

    def __post_init__(self) -> None:
        if len(self.numbers) != MLDSA44_PUBLIC_SIZE + ED25519_SIZE:
            raise ProtocolError(f"ML-DSA-44 and Ed25519 key of {len(self.numbers)} bytes")

    @property
    def algorithm(self) -> str:
        """The name "ssh-mldsa44-ed25519"; OpenSSH 10.4 and 10.5 had "@openssh.com" behind it."""
        return self.name

    def write_fields(self, writer: Writer) -> None:
        writer.string(self.numbers)

    def to_cryptography(self) -> composite.CompositePublicKey:
        """Return the key with the methods of a `cryptography` object; `ProtocolError` without ML-DSA."""
        from replug.protocol import composite

        return composite.CompositePublicKey(self.numbers)

    def validate(self) -> None:
        """Raise `ProtocolError` if it cannot be used here."""
        self.to_cryptography()


@dataclass(frozen=True, repr=False)
class SkPublicKey(_Key):
    """A key in a FIDO authenticator: the plain key and the application it is bound to (PROTOCOL.u2f)."""

    key: EcdsaPublicKey | Ed25519PublicKey
    application: str

    def __post_init__(self) -> None:
        if isinstance(self.key, EcdsaPublicKey) and self.key.curve is not Curve.NISTP256:
            raise ProtocolError(f"FIDO key on {self.key.curve.value}")

    @property
    def algorithm(self) -> str:
        """The name of the plain key between "sk-" and "@openssh.com"."""
        return f"sk-{self.key.algorithm}{_SK_MARK}"

    def write_fields(self, writer: Writer) -> None:
        self.key.write_fields(writer)
        writer.text(self.application)


PublicKey: TypeAlias = RsaPublicKey | EcdsaPublicKey | Ed25519PublicKey | CompositePublicKey


def is_certificate(algorithm: str) -> bool:
    """Return whether blobs of this name are OpenSSH certificates."""
    return algorithm.endswith(_CERTIFICATE_MARK) or algorithm in _OF_CERTIFICATES


def plain_algorithm(algorithm: str) -> str:
    """Return the name of the key inside certificates of this name; any other name unchanged."""
    if not is_certificate(algorithm):
        return algorithm
    if algorithm in _OF_CERTIFICATES:
        return _OF_CERTIFICATES[algorithm]
    plain = algorithm.removesuffix(_CERTIFICATE_MARK)
    return plain + _SK_MARK if plain.startswith("sk-") else plain


def certificate_algorithm(key: PublicKey | SkPublicKey) -> str:
    """Return the name of certificates for this key."""
    algorithm = key.algorithm
    return _CERTIFICATES_OF.get(algorithm) or algorithm.removesuffix(_SK_MARK) + _CERTIFICATE_MARK


def blob_algorithm(blob: bytes) -> str:
    """Return the name a key or certificate blob starts with; `ProtocolError` if it starts with none."""
    return Reader(blob).name()


def read_fields(algorithm: str, reader: Reader) -> PublicKey | SkPublicKey:
    """Take the fields of a plain key named `algorithm`; `ProtocolError` if it is malformed or unknown."""
    match algorithm:
        case "ssh-rsa":
            return RsaPublicKey.read_fields(reader)
        case "ssh-ed25519":
            return Ed25519PublicKey.read_fields(reader)
        case "ecdsa-sha2-nistp256" | "ecdsa-sha2-nistp384" | "ecdsa-sha2-nistp521":
            return EcdsaPublicKey.read_fields(Curve(algorithm.removeprefix("ecdsa-sha2-")), reader)
        case "ssh-mldsa44-ed25519" | "ssh-mldsa44-ed25519@openssh.com":
            return CompositePublicKey(algorithm, reader.string())
        case "sk-ssh-ed25519@openssh.com":
            return SkPublicKey(Ed25519PublicKey.read_fields(reader), reader.text())
        case "sk-ecdsa-sha2-nistp256@openssh.com":
            return SkPublicKey(EcdsaPublicKey.read_fields(Curve.NISTP256, reader), reader.text())
        case _:
            raise ProtocolError(f"key type {visible(algorithm)} is not supported")


def parse_any_public_key(blob: bytes) -> PublicKey | SkPublicKey:
    """Return the key of a plain public key blob; `ProtocolError` if it is malformed or a certificate.

    Whether a point is on its curve is not checked here, because that needs `cryptography`: see
    `EcdsaPublicKey.validate`.
    """
    reader = Reader(blob)
    key = read_fields(reader.name(), reader)
    reader.check_end()
    return key


def parse_public_key(blob: bytes) -> PublicKey:
    """Like `parse_any_public_key`, but `ProtocolError` for a FIDO key."""
    key = parse_any_public_key(blob)
    if isinstance(key, SkPublicKey):
        raise ProtocolError(f"key type {visible(key.algorithm)} is not supported here")
    return key


def plain_blob(blob: bytes) -> bytes:
    """Return the blob of the key in a certificate, unparsed but for that key; other blobs as they are."""
    reader = Reader(blob)
    algorithm = reader.name()
    if not is_certificate(algorithm):
        return blob
    reader.string()  # the nonce
    return read_fields(plain_algorithm(algorithm), reader).encode()


def fingerprint(blob: bytes, hash_name: str = FINGERPRINT_HASHES[0]) -> str:
    """Return a key's fingerprint as `ssh-add -l` prints it: "SHA256:" and base64, or "MD5:" and hex pairs.

    A certificate has the fingerprint of its key [sshkey_fingerprint_raw]. Because it is used in
    log lines, bytes that are not a key blob have a fingerprint too. `hash_name` is one of FINGERPRINT_HASHES.
    """
    with suppress(ProtocolError):
        blob = plain_blob(blob)
    digest = hashlib.new(hash_name, blob, usedforsecurity=False).digest()
    shown = digest.hex(":") if hash_name == "md5" else base64.b64encode(digest).decode().rstrip("=")
    return f"{hash_name.upper()}:{shown}"
