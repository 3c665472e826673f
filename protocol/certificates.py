"""OpenSSH certificates (PROTOCOL.certkeys): a public key, what it may be used for, and a CA's signature."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from replug.protocol.constants import MAX_CERTIFICATE_OPTIONS, MAX_PRINCIPALS
from replug.protocol.keys import (
    PublicKey,
    SkPublicKey,
    blob_algorithm,
    certificate_algorithm,
    is_certificate,
    parse_any_public_key,
    plain_algorithm,
    read_fields,
)
from replug.protocol.signatures import verify_any
from replug.protocol.visible_text import visible
from replug.protocol.wire import ProtocolError, Reader, Writer

_EMPTY_STRING = bytes(4)
Options: TypeAlias = tuple[tuple[str, bytes], ...]
"""Critical options or extensions: names, with data whose form depends on the name."""


class CertificateType(IntEnum):
    """Whether a certificate identifies a user or a host."""

    USER = 1
    HOST = 2


@dataclass(frozen=True)
class Certificate:
    """A certificate as parsed from its blob; only `verify_signature` checks the CA's signature.

    `key_id` and `principals` are bytes because the format does not specify an encoding. Times are seconds
    since 1970; `ca_key` and `signature` are blobs.
    """

    nonce: bytes
    key: PublicKey | SkPublicKey
    serial: int
    type: CertificateType
    key_id: bytes
    principals: tuple[bytes, ...]
    valid_after: int
    valid_before: int
    critical_options: Options
    extensions: Options
    reserved: bytes
    ca_key: bytes
    signature: bytes

    def __post_init__(self) -> None:
        if len(self.principals) > MAX_PRINCIPALS:
            raise ProtocolError(f"certificate with more than {MAX_PRINCIPALS} principals")
        if is_certificate(blob_algorithm(self.ca_key)):
            raise ProtocolError("certificate signed by a certificate")

    @property
    def algorithm(self) -> str:
        """The name at the start of the blob, such as "ssh-ed25519-cert-v01@openssh.com"."""
        return certificate_algorithm(self.key)

    def encode(self) -> bytes:
        """Return the certificate blob."""
        return bytes(Writer().raw(self.body()).string(self.signature))

    @classmethod
    def decode(cls, blob: bytes) -> Certificate:
        """Return the certificate of a blob; `ProtocolError` if it is malformed or of an unknown key type."""
        reader = Reader(blob)
        algorithm = reader.name()
        if not is_certificate(algorithm):
            raise ProtocolError(f"{visible(algorithm)} is not a certificate")
        certificate = cls(
            nonce=reader.string(),
            key=read_fields(plain_algorithm(algorithm), reader),
            serial=reader.uint64(),
            type=_read_type(reader),
            key_id=reader.cstring(),
            principals=_read_principals(reader),
            valid_after=reader.uint64(),
            valid_before=reader.uint64(),
            critical_options=_read_options(reader),
            extensions=_read_options(reader),
            reserved=reader.string(),
            ca_key=reader.string(),
            signature=reader.string(),
        )
        reader.check_end()
        return certificate

    @classmethod
    def decode_body(cls, body: bytes) -> Certificate:
        """Return the certificate that a CA is asked to sign, with an empty signature."""
        return cls.decode(body + _EMPTY_STRING)

    def verify_signature(self) -> None:
        """Raise `ProtocolError` unless the CA key signed this."""
        verify_any(parse_any_public_key(self.ca_key), self.signature, self.body())

    def body(self) -> bytes:
        """Return what the CA signs: the blob without the signature."""
        writer = Writer().text(self.algorithm).string(self.nonce)
        self.key.write_fields(writer)
        writer.uint64(self.serial).uint32(self.type).string(self.key_id)
        writer.string(bytes(Writer().strings(self.principals)))
        writer.uint64(self.valid_after).uint64(self.valid_before)
        writer.string(_encode_options(self.critical_options)).string(_encode_options(self.extensions))
        return bytes(writer.string(self.reserved).string(self.ca_key))


def _read_type(reader: Reader) -> CertificateType:
    number = reader.uint32()
    try:
        return CertificateType(number)
    except ValueError as error:
        raise ProtocolError(f"certificate of unknown type {number}") from error


def _read_principals(reader: Reader) -> tuple[bytes, ...]:
    names = Reader(reader.string())
    return names.repeated(names.cstring, MAX_PRINCIPALS)


def _read_options(reader: Reader) -> Options:
    options = Reader(reader.string())
    return options.repeated(lambda: (options.text(), options.string()), MAX_CERTIFICATE_OPTIONS)


def _encode_options(options: Options) -> bytes:
    writer = Writer()
    for name, data in options:
        writer.text(name).string(data)
    return bytes(writer)
