"""Private keys as ADD_IDENTITY carries them (RFC 9987 section 5.2), with or without their certificate.

Keys are only parsed here: numbers that do not belong together are detected when the key is first used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import IntFlag
from typing import TypeAlias

from replug.protocol.certificates import Certificate
from replug.protocol.keys import (
    COMPOSITE_SECRET_SIZE,
    ED25519_SIZE,
    CompositePublicKey,
    EcdsaPublicKey,
    Ed25519PublicKey,
    PublicKey,
    RsaPublicKey,
    SkPublicKey,
    is_certificate,
    plain_algorithm,
    read_fields,
)
from replug.protocol.visible_text import visible
from replug.protocol.wire import ProtocolError, Reader, Writer


@dataclass(frozen=True)
class _PrivateKey(ABC):
    """Common to all private keys: the public key and, optionally, a certificate for it."""

    public: PublicKey | SkPublicKey
    certificate: Certificate | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.certificate is not None and self.certificate.key != self.public:
            raise ProtocolError("the certificate is for another key")

    @property
    def algorithm(self) -> str:
        """The name at the start of the private key: the certificate's, where there is one."""
        return self.certificate.algorithm if self.certificate else self.public.algorithm

    @property
    def blob(self) -> bytes:
        """The blob the agent lists this key as: the certificate, where there is one."""
        return self.certificate.encode() if self.certificate else self.public.encode()

    def encode(self) -> bytes:
        """Return the key in wire form, without a length in front."""
        writer = Writer().text(self.algorithm)
        if self.certificate:
            writer.string(self.certificate.encode())
        self._write_fields(writer)
        return bytes(writer)

    @abstractmethod
    def _write_fields(self, writer: Writer) -> None:
        """Put the fields after name and certificate; most types omit what the certificate says already."""


@dataclass(frozen=True)
class RsaPrivateKey(_PrivateKey):
    """An RSA key: the exponent `d`, the primes `p` and `q`, and `iqmp`, the inverse of q modulo p."""

    public: RsaPublicKey
    d: int = field(repr=False)
    iqmp: int = field(repr=False)
    p: int = field(repr=False)
    q: int = field(repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 < number < self.public.n for number in (self.d, self.iqmp, self.p, self.q)):
            raise ProtocolError("impossible RSA private key")

    def _write_fields(self, writer: Writer) -> None:
        if not self.certificate:
            writer.mpint(self.public.n).mpint(self.public.e)
        writer.mpint(self.d).mpint(self.iqmp).mpint(self.p).mpint(self.q)


@dataclass(frozen=True)
class EcdsaPrivateKey(_PrivateKey):
    """A key on a NIST curve: the secret number `d`."""

    public: EcdsaPublicKey
    d: int = field(repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.d < 1 << 8 * self.public.curve.coordinate_size:
            raise ProtocolError("impossible ECDSA private key")

    def _write_fields(self, writer: Writer) -> None:
        if not self.certificate:
            self.public.write_fields(writer)
        writer.mpint(self.d)


@dataclass(frozen=True)
class Ed25519PrivateKey(_PrivateKey):
    """An Ed25519 key: its seed, 32 bytes (the private key of RFC 8032)."""

    public: Ed25519PublicKey
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.seed) != ED25519_SIZE:
            raise ProtocolError(f"Ed25519 private key of {len(self.seed)} bytes")

    def _write_fields(self, writer: Writer) -> None:
        self.public.write_fields(writer)
        writer.string(self.seed + self.public.point)


class SkFlag(IntFlag):
    """What a FIDO key wants of its user [sk-api.h]; other bits say nothing about that."""

    USER_PRESENCE_REQUIRED = 0x01
    """A touch."""
    USER_VERIFICATION_REQUIRED = 0x04
    """A PIN, or what the authenticator has instead, such as a fingerprint."""


@dataclass(frozen=True)
class CompositePrivateKey(_PrivateKey):
    """An ML-DSA-44 and an Ed25519 key: both seeds, 64 bytes."""

    public: CompositePublicKey
    seeds: bytes = field(repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.seeds) != COMPOSITE_SECRET_SIZE:
            raise ProtocolError(f"ML-DSA-44 and Ed25519 private key of {len(self.seeds)} bytes")

    def _write_fields(self, writer: Writer) -> None:
        if not self.certificate:
            self.public.write_fields(writer)
        writer.string(self.seeds)


@dataclass(frozen=True)
class SkPrivateKey(_PrivateKey):
    """A FIDO key: the handle by which the authenticator finds its secret (PROTOCOL.u2f)."""

    public: SkPublicKey
    flags: int
    key_handle: bytes = field(repr=False)
    reserved: bytes

    def _write_fields(self, writer: Writer) -> None:
        # An Ed25519 point is repeated after the certificate, an ECDSA point is not.
        if not self.certificate or isinstance(self.public.key, Ed25519PublicKey):
            self.public.key.write_fields(writer)
        writer.text(self.public.application)
        writer.byte(self.flags).string(self.key_handle).string(self.reserved)


PrivateKey: TypeAlias = (
    RsaPrivateKey | EcdsaPrivateKey | Ed25519PrivateKey | CompositePrivateKey | SkPrivateKey
)


def read_private_key(reader: Reader) -> PrivateKey:
    """Take a private key; `ProtocolError` if it is malformed or of an unknown type.

    Fields that are both in the certificate and in the private part must agree
    [sshkey_private_deserialize]; so must the two copies of an Ed25519 public key.
    """
    algorithm = reader.name()
    certificate = None
    if is_certificate(algorithm):
        certificate = Certificate.decode(reader.string())
        if certificate.algorithm != algorithm:
            raise ProtocolError(f"a {certificate.algorithm} in a private key named {visible(algorithm)}")
    match read_public(plain_algorithm(algorithm), certificate, reader):
        case RsaPublicKey() as public:
            d, iqmp, p, q = reader.mpint(), reader.mpint(), reader.mpint(), reader.mpint()
            return RsaPrivateKey(public, d, iqmp, p, q, certificate=certificate)
        case EcdsaPublicKey() as public:
            return EcdsaPrivateKey(public, reader.mpint(), certificate=certificate)
        case Ed25519PublicKey() as public:
            secret = reader.string()
            if secret[ED25519_SIZE:] != public.point:
                raise ProtocolError("the two halves of an Ed25519 private key do not belong together")
            return Ed25519PrivateKey(public, secret[:ED25519_SIZE], certificate=certificate)
        case CompositePublicKey() as public:
            return CompositePrivateKey(public, reader.string(), certificate=certificate)
        case SkPublicKey() as public:
            flags, key_handle, reserved = reader.byte(), reader.string(), reader.string()
            return SkPrivateKey(public, flags, key_handle, reserved, certificate=certificate)


_AnyPublicKey: TypeAlias = PublicKey | SkPublicKey


def read_public(plain: str, certificate: Certificate | None, reader: Reader) -> _AnyPublicKey:
    """Take the public key from the private part, completed from the certificate."""
    if certificate:
        match certificate.key:
            case RsaPublicKey() | EcdsaPublicKey() | CompositePublicKey() as key:
                return key
            case SkPublicKey(key=EcdsaPublicKey() as key):
                return SkPublicKey(key, reader.text())
    if plain == "ssh-rsa":
        n, e = reader.mpint(), reader.mpint()  # the other way round than in the public key blob
        return RsaPublicKey(e, n)
    return read_fields(plain, reader)


def secret_fields(public: PublicKey) -> int:
    """Return how many strings of a private key follow its public half."""
    return 4 if isinstance(public, RsaPublicKey) else 1
