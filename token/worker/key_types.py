"""The types of keys that a token can be asked to make, by the names that users give them."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum


class KeyType(StrEnum):
    """Each is one that SSH can use."""

    P256 = "ecdsa-p256"
    P384 = "ecdsa-p384"
    ED25519 = "ed25519"
    RSA2048 = "rsa2048"
    RSA3072 = "rsa3072"
    RSA4096 = "rsa4096"

    @property
    def bits(self) -> int:
        """The size of an RSA modulus; 0 for the others."""
        return int(self.removeprefix("rsa")) if self.startswith("rsa") else 0


_LIKED = (KeyType.P256, KeyType.RSA3072, KeyType.RSA2048, KeyType.ED25519, KeyType.P384, KeyType.RSA4096)
"""What most modules and servers know comes first; cards take minutes to find large primes."""


def usual_type(able: Collection[KeyType]) -> KeyType | None:
    """The one to make if the user names none, of those that the token is `able` to make."""
    return next((kind for kind in _LIKED if kind in able), None)
