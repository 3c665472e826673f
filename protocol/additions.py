"""What an agent may know of an ADD_IDENTITY message: all of it but the private key's numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

from replug.protocol.certificates import Certificate
from replug.protocol.constants import MAX_COMMENT, MessageType
from replug.protocol.constraints import AssociatedCerts, Constraint, parse_constraints
from replug.protocol.keys import (
    PublicKey,
    RsaPublicKey,
    SkPublicKey,
    is_certificate,
    plain_algorithm,
)
from replug.protocol.private_keys import read_public, secret_fields
from replug.protocol.secrets import wipe
from replug.protocol.visible_text import visible
from replug.protocol.wire import ProtocolError, Reader

_TYPES = (MessageType.ADD_IDENTITY, MessageType.ADD_ID_CONSTRAINED)


@dataclass(frozen=True)
class KeyAddition:
    """A key to add (RFC 9987 section 5.2); whether its halves belong together is not known yet."""

    message: bytearray = field(repr=False)
    """The whole message. It is the owner's to wipe."""
    public: PublicKey
    blob: bytes
    """What the key is to be listed as: its public key, or its certificate."""
    comment: bytes
    constraints: tuple[Constraint, ...]
    longest_secret: int
    """Bytes of the longest number of the private key but the first."""

    @property
    def rsa_bits(self) -> int:
        """The size of an RSA key with even primes that takes as long to sign; 0 for keys of other types."""
        if not isinstance(self.public, RsaPublicKey):
            return 0
        return max(self.public.n.bit_length(), 2 * 8 * (self.longest_secret - 1))

    @classmethod
    def decode(cls, message: bytearray) -> KeyAddition:
        """Return what `message` adds; of its private numbers no copy is made that is not wiped.

        Raises `ProtocolError` if what is read is malformed.
        """
        reader = Reader(message)
        try:
            return cls._read(message, reader)
        finally:
            reader.wipe()

    @classmethod
    def _read(cls, message: bytearray, reader: Reader) -> KeyAddition:
        if reader.byte() not in _TYPES:
            raise ProtocolError("not a request to add a key")
        algorithm = reader.name()
        certificate = None
        blob = b""
        if is_certificate(algorithm):
            blob = reader.string()
            certificate = Certificate.decode(blob)
            if certificate.algorithm != algorithm:
                raise ProtocolError(f"a {certificate.algorithm} in a private key named {visible(algorithm)}")
        public = read_public(plain_algorithm(algorithm), certificate, reader)
        if isinstance(public, SkPublicKey):
            raise ProtocolError(f"keys of FIDO authenticators ({visible(algorithm)}) are not supported")
        _, *others = (reader.skip_string() for _ in range(secret_fields(public)))
        comment = reader.cstring()
        if len(comment) > MAX_COMMENT:
            raise ProtocolError(f"a comment of more than {MAX_COMMENT} bytes")
        constraints = parse_constraints(reader)
        if any(isinstance(constraint, AssociatedCerts) for constraint in constraints):
            raise ProtocolError("constraint AssociatedCerts does not belong in this request")
        longest = max(others, default=0)
        return cls(message, public, blob or public.encode(), comment, constraints, longest)

    def wipe(self) -> None:
        """Overwrite the message; nothing else in it is secret."""
        wipe(self.message)
