"""The keys of a PIV card: which slots there are, what they sign, and what the card tells about them."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from rigs.home import Home
from rigs.piv_apdu import RefusedError, Status


class Slot(IntEnum):
    """PIV's key slots, by their key reference (SP 800-73-4 part 1 table 4b)."""

    AUTHENTICATION = 0x9A  # PIN once
    SIGNATURE = 0x9C  # PIN always
    KEY_MANAGEMENT = 0x9D  # PIN once; with an EC key only for key agreement
    CARD_AUTHENTICATION = 0x9E  # PIN never


class PinPolicy(IntEnum):
    """When a slot wants the PIN; the numbers are those of Yubico's GET METADATA."""

    NEVER = 1
    ONCE = 2
    ALWAYS = 3


POLICIES = {
    Slot.AUTHENTICATION: PinPolicy.ONCE,
    Slot.SIGNATURE: PinPolicy.ALWAYS,
    Slot.KEY_MANAGEMENT: PinPolicy.ONCE,
    Slot.CARD_AUTHENTICATION: PinPolicy.NEVER,
}

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Algorithm(IntEnum):
    """Key types by their algorithm identifier (SP 800-78-4 table 6-2)."""

    RSA_2048 = 0x07
    P256 = 0x11
    P384 = 0x14

    def generate(self) -> PrivateKey:
        """A new key."""
        match self:
            case Algorithm.RSA_2048:
                return rsa.generate_private_key(65537, 2048)
            case Algorithm.P256:
                return ec.generate_private_key(ec.SECP256R1())
            case Algorithm.P384:
                return ec.generate_private_key(ec.SECP384R1())


@dataclass(frozen=True)
class Key:
    """A private key and the certificate that makes it known."""

    algorithm: Algorithm
    private: PrivateKey
    certificate: bytes
    """X.509, DER."""

    @classmethod
    def new(cls, algorithm: Algorithm, name: str, private: PrivateKey | None = None) -> Key:
        """A key with a self-signed certificate for `name`; `private` if it exists already."""
        private = private or algorithm.generate()
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder(subject, subject, private.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=365))
            .sign(private, SHA256())
        )
        return cls(algorithm, private, certificate.public_bytes(Encoding.DER))

    @property
    def ssh(self) -> str:
        """The public key as ssh-add -L prints it, without a comment."""
        return self.private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

    @property
    def metadata(self) -> bytes:
        """The public key as Yubico's GET METADATA has it."""
        public = self.private.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            numbers = public.public_numbers()
            return tlv(0x81, numbers.n.to_bytes(256)) + tlv(0x82, numbers.e.to_bytes(3))
        return tlv(0x86, public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))

    def write_public(self, home: Home, name: str) -> Path:
        """Writes the .pub file."""
        return home.write(f"{name}.pub", f"{self.ssh} {name}\n", 0o644)

    def sign(self, challenge: bytes) -> bytes:
        """What the card computes: raw RSA of a padded block, or ECDSA of a hash (SP 800-73-4 part 2)."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            private = self.private.private_numbers()
            modulus, block = private.public_numbers.n, int.from_bytes(challenge)
            if len(challenge) != 256 or block >= modulus:
                raise RefusedError(Status.WRONG_DATA)
            return pow(block, private.d, modulus).to_bytes(256)
        size = self.private.key_size // 8
        digest = challenge[:size].rjust(size, b"\0")
        hashing = SHA256() if size == 32 else SHA384()
        return self.private.sign(digest, ec.ECDSA(utils.Prehashed(hashing)))


def tlv(tag: int, *values: bytes) -> bytes:
    """A BER-TLV data object with the values put together."""
    value = b"".join(values)
    count = len(value)
    length = (
        bytes([count])
        if count < 0x80
        else b"\x81%c" % count
        if count < 0x100
        else b"\x82" + count.to_bytes(2)
    )
    return tag.to_bytes((tag.bit_length() + 7) // 8) + length + value


def parse_tlv(data: bytes) -> dict[int, bytes]:
    """The objects with one-byte tags in `data`; RefusedError when they do not fit."""
    found = {}
    while data:
        tag, length, start = data[0], int.from_bytes(data[1:2]), 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(data[2:start])
        if len(data) < start + length:
            raise RefusedError(Status.WRONG_DATA)
        found[tag], data = data[start : start + length], data[start + length :]
    return found
