"""ML-DSA-44 and Ed25519 in one key, so that an attacker has to break both [ssh-mldsa-eddsa.c].

The two sign one digest, by draft-ietf-lamps-pq-composite-sigs. Public numbers, seeds and signatures are those
of both in a row, ML-DSA's first. What is here has the form of `cryptography`'s own keys.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa

from replug.protocol.constants import MLDSA44_PUBLIC_SIZE
from replug.protocol.wire import ProtocolError

_MLDSA44_SEED, _MLDSA44_SIGNATURE, _ED25519_SIGNATURE = 32, 2420, 64  # bytes
_PREFIX = b"CompositeAlgorithmSignatures2025"
_LABEL = b"COMPSIG-MLDSA44-Ed25519-SHA512"


class CompositePublicKey:
    """Verifies signatures."""

    def __init__(self, numbers: bytes) -> None:
        """`numbers` are of the right size; ProtocolError if OpenSSL has no ML-DSA."""
        self._ed25519 = ed25519.Ed25519PublicKey.from_public_bytes(numbers[MLDSA44_PUBLIC_SIZE:])
        try:
            self._mldsa = mldsa.MLDSA44PublicKey.from_public_bytes(numbers[:MLDSA44_PUBLIC_SIZE])
        except UnsupportedAlgorithm as error:
            raise _unsupported() from error

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raise `cryptography`'s InvalidSignature unless both halves are signatures of `data`."""
        if len(signature) != _MLDSA44_SIGNATURE + _ED25519_SIGNATURE:
            raise InvalidSignature
        message = _message(data)
        self._mldsa.verify(signature[:_MLDSA44_SIGNATURE], message, _LABEL)
        self._ed25519.verify(signature[_MLDSA44_SIGNATURE:], message)


class CompositePrivateKey:
    """Signs, under one of the names that there are for it."""

    def __init__(self, algorithm: str, seeds: bytes) -> None:
        """`seeds` are of the right size; ProtocolError if OpenSSL has no ML-DSA."""
        self.algorithm = algorithm
        self._ed25519 = ed25519.Ed25519PrivateKey.from_private_bytes(seeds[_MLDSA44_SEED:])
        try:
            self._mldsa = mldsa.MLDSA44PrivateKey.from_seed_bytes(seeds[:_MLDSA44_SEED])
        except UnsupportedAlgorithm as error:
            raise _unsupported() from error

    def public_numbers(self) -> bytes:
        """Return the numbers of the public key."""
        return self._mldsa.public_key().public_bytes_raw() + self._ed25519.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """Return the two signatures of `data`."""
        message = _message(data)
        return self._mldsa.sign(message, _LABEL) + self._ed25519.sign(message)


def _message(data: bytes) -> bytes:
    """What both sign: there is no context, whose length is the zero."""
    return _PREFIX + _LABEL + b"\0" + hashlib.sha512(data).digest()


def _unsupported() -> ProtocolError:
    return ProtocolError("the OpenSSL of the installed cryptography has no ML-DSA, which this key needs")
