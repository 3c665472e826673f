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
from replug.protocol.private_keys import SkFlag, read_public, secret_fields
from replug.protocol.secrets import copy_over, wipe
from replug.protocol.visible_text import visible
from replug.protocol.wire import ProtocolError, Reader

_TYPES = (MessageType.ADD_IDENTITY, MessageType.ADD_ID_CONSTRAINED)


@dataclass(frozen=True)
class KeyAddition:
    """A key to add (RFC 9987 section 5.2); whether its halves belong together is not known yet."""

    message: bytearray = field(repr=False)
    """The whole message. It is the owner's to wipe."""
    public: PublicKey | SkPublicKey
    blob: bytes
    """What the key is to be listed as: its public key, or its certificate."""
    comment: bytes
    constraints: tuple[Constraint, ...]
    longest_secret: int
    """Bytes of the longest number of the private key but the first; 0 for FIDO keys."""
    sk_flags: SkFlag
    """What a FIDO key wants of its user; nothing for others."""
    key_end: int
    """Where the private key ends in the message."""

    @property
    def rsa_bits(self) -> int:
        """The size of an RSA key with even primes that takes as long to sign; 0 for keys of other types."""
        if not isinstance(self.public, RsaPublicKey):
            return 0
        return max(self.public.n.bit_length(), 2 * 8 * (self.longest_secret - 1))

    def private_key(self) -> bytearray:
        """Return a copy of the private key in the message, which the caller wipes."""
        key = bytearray(self.key_end - 1)
        copy_over(self.message, 1, self.key_end, key)
        return key

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
        sk_flags, longest = SkFlag(0), 0
        if isinstance(public, SkPublicKey):
            if certificate is not None and certificate.key != public:
                raise ProtocolError("the certificate is for another key")
            sk_flags = SkFlag(reader.byte())
            reader.skip_string()  # the key handle
            reader.skip_string()  # reserved
        else:
            _, *others = (reader.skip_string() for _ in range(secret_fields(public)))
            longest = max(others, default=0)
        key_end = len(message) - reader.remaining
        comment = reader.cstring()
        if len(comment) > MAX_COMMENT:
            raise ProtocolError(f"a comment of more than {MAX_COMMENT} bytes")
        constraints = parse_constraints(reader)
        if any(isinstance(constraint, AssociatedCerts) for constraint in constraints):
            raise ProtocolError("constraint AssociatedCerts does not belong in this request")
        listed = blob or public.encode()
        return cls(message, public, listed, comment, constraints, longest, sk_flags, key_end)

    def wipe(self) -> None:
        """Overwrite the message; nothing else in it is secret."""
        wipe(self.message)
