"""OpenSSH certificates for keys on tokens, looked up by key."""

from __future__ import annotations

from collections.abc import Iterable

from replug.protocol.certificates import Certificate
from replug.protocol.wire import ProtocolError


class Certificates:
    """Certificates by the key they are for; blobs that are not certificates are skipped, as in ssh-agent."""

    def __init__(self, blobs: Iterable[bytes]) -> None:
        self._of: dict[bytes, tuple[bytes, ...]] = {}
        for blob in blobs:
            try:
                key = Certificate.decode(blob).key.encode()
            except ProtocolError:
                continue
            self._of[key] = (*self._of.get(key, ()), blob)

    def of_key(self, key_blob: bytes) -> tuple[bytes, ...]:
        """The certificates for a public key, in the order they were given."""
        return self._of.get(key_blob, ())
