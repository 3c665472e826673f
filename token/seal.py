"""Keeps secrets encrypted under a key that can itself be encrypted under a passphrase (`ssh-add -x`).

Secrets stay in buffers of our own here, which are wiped: `bytes` objects would leave copies behind.
"""

from __future__ import annotations

import os

from replug.protocol.secrets import wipe

KEY_SIZE = 32
_NONCE_SIZE = 12
_TAG_SIZE = 16
_SCRYPT_COST = 2**15  # about 0.1 s and 32 MiB


class SealedError(Exception):
    """The seal is shut: nothing can be sealed or opened without the passphrase."""


class Seal:
    """A random key of this process, which seals secrets and opens them; while it is shut, it does neither."""

    def __init__(self) -> None:
        self.is_shut = False
        """Whether a passphrase is needed."""
        self._key = bytearray()
        self._sealed_key = b""
        """The key, encrypted, while the seal is shut."""

    def seal(self, secret: bytearray) -> bytes:
        """Encrypt `secret`. Raises SealedError."""
        return _encrypt(self._usable_key(), secret)

    def open(self, sealed: bytes) -> bytearray:
        """Decrypt `sealed` into a buffer that the caller wipes. Raises SealedError."""
        opened = _decrypt(self._usable_key(), sealed)
        assert opened is not None, "sealed by another process"
        return opened

    def shut(self, derived: bytearray) -> None:
        """Encrypt the key under one that `derive_key` made. Raises SealedError if it is shut."""
        self._sealed_key = _encrypt(derived, self._usable_key())
        wipe(self._key)
        self._key = bytearray()
        self.is_shut = True

    def reopen(self, derived: bytearray) -> bool:
        """Undo `shut`; returns whether `derived` was made from the same passphrase and salt."""
        key = _decrypt(derived, self._sealed_key) if self.is_shut else None
        if key is None:
            return False
        self._key, self._sealed_key, self.is_shut = key, b"", False
        return True

    def _usable_key(self) -> bytearray:
        if self.is_shut:
            raise SealedError
        if not self._key:
            self._key = _random_key()
        return self._key


def derive_key(passphrase: bytearray, salt: bytes) -> bytearray:
    """Derive a key from a passphrase (scrypt, RFC 7914); too slow for the event loop."""
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    key = bytearray(KEY_SIZE)
    Scrypt(salt=salt, length=KEY_SIZE, n=_SCRYPT_COST, r=8, p=1).derive_into(passphrase, key)
    return key


def _random_key() -> bytearray:
    key = bytearray(KEY_SIZE)
    # Not os.urandom(): it returns bytes, which cannot be wiped.
    with open("/dev/urandom", "rb", buffering=0) as source:
        if source.readinto(key) != KEY_SIZE:
            raise OSError("/dev/urandom gave too little")
    return key


def _encrypt(key: bytearray, secret: bytearray) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(_NONCE_SIZE)
    return nonce + AESGCM(key).encrypt(nonce, secret, None)


def _decrypt(key: bytearray, sealed: bytes) -> bytearray | None:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce, encrypted = sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:]
    secret = bytearray(len(encrypted) - _TAG_SIZE)
    try:
        AESGCM(key).decrypt_into(nonce, encrypted, None, secret)
    except InvalidTag:
        return None
    return secret
