"""The data that ssh has signed to log in (RFC 4252 section 7, and PROTOCOL's publickey-hostbound)."""

from __future__ import annotations

from dataclasses import dataclass

from replug.protocol.visible_text import visible
from replug.protocol.wire import ProtocolError, Reader, Writer

USERAUTH_REQUEST = 50
"""The message number that follows the session identifier in what is signed (RFC 4252 section 6)."""
_SERVICE = "ssh-connection"
_PLAIN_METHOD = "publickey"
_HOST_BOUND_METHOD = "publickey-hostbound-v00@openssh.com"
_RSA_CERTIFICATE_MARK = "-cert-v01@openssh.com"
_RSA_NAMES = ("ssh-rsa", "rsa-sha2-256", "rsa-sha2-512")


@dataclass(frozen=True)
class UserauthRequest:
    """A login by public key: the session it is for, the user there, the signature's algorithm and the key."""

    session_id: bytes
    user: str
    algorithm: str
    key_blob: bytes
    host_key: bytes | None = None
    """The blob of the server's key; None if the method is not bound to it."""

    def encode(self) -> bytes:
        """Return the data to sign."""
        method = _PLAIN_METHOD if self.host_key is None else _HOST_BOUND_METHOD
        writer = Writer().string(self.session_id).byte(USERAUTH_REQUEST).text(self.user).text(_SERVICE)
        writer.text(method).byte(1).text(self.algorithm).string(self.key_blob)
        return bytes(writer if self.host_key is None else writer.string(self.host_key))

    @classmethod
    def decode(cls, data: bytes) -> UserauthRequest:
        """Parse data to sign [parse_userauth_request]; `ProtocolError` if it is not a login."""
        reader = Reader(data)
        session_id, number, user = reader.string(), reader.byte(), reader.text()
        service, method, signed = reader.name(), reader.name(), reader.byte()
        algorithm, key_blob = reader.name(), reader.string()
        if (number, service, signed) != (USERAUTH_REQUEST, _SERVICE, 1):
            raise ProtocolError("not a login")
        if method not in (_PLAIN_METHOD, _HOST_BOUND_METHOD):
            raise ProtocolError(f"a login by {visible(method)}")
        host_key = reader.string() if method == _HOST_BOUND_METHOD else None
        reader.check_end()
        if not session_id:
            raise ProtocolError("a login without a session identifier")
        # RSA has several signature algorithms for one type of key.
        plain, mark, rest = algorithm.partition(_RSA_CERTIFICATE_MARK)
        key_type = f"ssh-rsa{mark}" if plain in _RSA_NAMES and not rest else algorithm
        if not key_blob.startswith(bytes(Writer().string(key_type.encode()))):
            raise ProtocolError(f"a login by {visible(algorithm)} with another type of key")
        return cls(session_id, user, algorithm, key_blob, host_key)
