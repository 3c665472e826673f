"""Key constraints of an add request: RFC 9987 section 5.2.7 and the extensions of OpenSSH's PROTOCOL.agent.

Each constraint is a value that could be on the wire: constructing one that breaks a rule or a limit of
OpenSSH's [parse_key_constraints] raises `ProtocolError`. What they permit is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from replug.protocol.constants import (
    MAX_ASSOCIATED_CERTS,
    MAX_DEST_CONSTRAINTS,
    MAX_HOP_KEYS,
    MAX_USER,
    ConstraintType,
)
from replug.protocol.visible_text import visible
from replug.protocol.wire import ProtocolError, Reader, Writer

RESTRICT_DESTINATION = "restrict-destination-v00@openssh.com"
ASSOCIATED_CERTS = "associated-certs-v00@openssh.com"
SK_PROVIDER = "sk-provider@openssh.com"
_TOO_MANY_HOP_KEYS = f"more than {MAX_HOP_KEYS} host keys in destination constraints"


class UnknownConstraintError(ProtocolError):
    """A constraint this agent does not know and so cannot enforce; the key must not be added."""


@dataclass(frozen=True)
class Lifetime:
    """Remove the key after this many seconds."""

    seconds: int

    def encode(self) -> bytes:
        """Return the constraint in wire form."""
        return bytes(Writer().byte(ConstraintType.LIFETIME).uint32(self.seconds))

    @classmethod
    def decode(cls, reader: Reader) -> Lifetime:
        """Take what follows the type byte."""
        return cls(reader.uint32())


@dataclass(frozen=True)
class Confirm:
    """Ask the user before each signature."""

    def encode(self) -> bytes:
        """Return the constraint in wire form."""
        return bytes(Writer().byte(ConstraintType.CONFIRM))


@dataclass(frozen=True)
class HopKey:
    """A host key that identifies a hop, or the key of a CA that certifies it."""

    blob: bytes
    is_ca: bool


@dataclass(frozen=True)
class Hop:
    """One end of a connection: `user` is a pattern, empty for any; an empty `hostname` is the local host."""

    user: str
    hostname: str
    keys: tuple[HopKey, ...]

    def __post_init__(self) -> None:
        if len(self.user.encode()) > MAX_USER:
            raise ProtocolError(f"user pattern of more than {MAX_USER} bytes")

    @cached_property
    def host_keys(self) -> frozenset[bytes]:
        """The blobs of the host keys by which it may be known."""
        return frozenset(key.blob for key in self.keys if not key.is_ca)

    @cached_property
    def ca_keys(self) -> frozenset[bytes]:
        """The blobs of the keys of CAs that may certify it."""
        return frozenset(key.blob for key in self.keys if key.is_ca)

    def encode(self) -> bytes:
        """Return the contents of the string that is a hop."""
        writer = Writer().text(self.user).text(self.hostname).string(b"")
        for key in self.keys:
            writer.string(key.blob).boolean(key.is_ca)
        return bytes(writer)

    @classmethod
    def decode(cls, contents: bytes) -> Hop:
        """Parse the contents of such a string."""
        reader = Reader(contents)
        user, hostname = reader.text(), reader.text()
        _check_reserved(reader)
        keys = reader.repeated(lambda: HopKey(blob=reader.string(), is_ca=reader.boolean()), MAX_HOP_KEYS)
        return cls(user, hostname, keys)


@dataclass(frozen=True)
class DestinationConstraint:
    """Permission to use the key between one host and the next."""

    from_hop: Hop
    to_hop: Hop

    def __post_init__(self) -> None:
        if self.from_hop.user or bool(self.from_hop.hostname) != bool(self.from_hop.keys):
            raise ProtocolError('inconsistent "from" in a destination constraint')
        if not self.to_hop.hostname or not self.to_hop.keys:
            raise ProtocolError('incomplete "to" in a destination constraint')

    @property
    def hop_keys(self) -> int:
        """How many host keys it names."""
        return len(self.from_hop.keys) + len(self.to_hop.keys)

    @property
    def size(self) -> int:
        """How much there is to keep of it: itself, and each of those keys."""
        return 1 + self.hop_keys

    def encode(self) -> bytes:
        """Return the contents of the string that is a destination constraint."""
        return bytes(Writer().string(self.from_hop.encode()).string(self.to_hop.encode()).string(b""))

    @classmethod
    def decode(cls, contents: bytes) -> DestinationConstraint:
        """Parse the contents of such a string."""
        reader = Reader(contents)
        constraint = cls(Hop.decode(reader.string()), Hop.decode(reader.string()))
        _check_reserved(reader)
        reader.check_end()
        return constraint


@dataclass(frozen=True)
class RestrictDestination:
    """Use the key for these destinations only; an empty list restricts nothing."""

    constraints: tuple[DestinationConstraint, ...]

    def __post_init__(self) -> None:
        if len(self.constraints) > MAX_DEST_CONSTRAINTS:
            raise ProtocolError(f"more than {MAX_DEST_CONSTRAINTS} destination constraints")
        if sum(constraint.hop_keys for constraint in self.constraints) > MAX_HOP_KEYS:
            raise ProtocolError(_TOO_MANY_HOP_KEYS)

    def encode(self) -> bytes:
        """Return the constraint in wire form."""
        inner = Writer().strings(constraint.encode() for constraint in self.constraints)
        return bytes(_extension(RESTRICT_DESTINATION).string(bytes(inner)))

    @classmethod
    def decode(cls, reader: Reader) -> RestrictDestination:
        """Take what follows the extension's name."""
        contents = Reader(reader.string()).strings(MAX_DEST_CONSTRAINTS)
        constraints: list[DestinationConstraint] = []
        keys = 0
        for content in contents:
            constraints.append(DestinationConstraint.decode(content))
            keys += constraints[-1].hop_keys
            # Before the rest is decoded.
            if keys > MAX_HOP_KEYS:
                raise ProtocolError(_TOO_MANY_HOP_KEYS)
        return cls(tuple(constraints))


@dataclass(frozen=True)
class AssociatedCerts:
    """Certificate blobs to list beside the token's keys they are for or, with `certs_only`, instead of them.

    The blobs are not checked here: those that match no key are ignored.
    """

    certs_only: bool
    certs: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if len(self.certs) > MAX_ASSOCIATED_CERTS:
            raise ProtocolError(f"more than {MAX_ASSOCIATED_CERTS} associated certificates")

    def encode(self) -> bytes:
        """Return the constraint in wire form."""
        inner = bytes(Writer().strings(self.certs))
        return bytes(_extension(ASSOCIATED_CERTS).boolean(self.certs_only).string(inner))

    @classmethod
    def decode(cls, reader: Reader) -> AssociatedCerts:
        """Take what follows the extension's name."""
        return cls(certs_only=reader.boolean(), certs=Reader(reader.string()).strings(MAX_ASSOCIATED_CERTS))


@dataclass(frozen=True)
class SkProvider:
    """The library, a path or "internal", that speaks to the FIDO authenticator of the key."""

    path: bytes

    def encode(self) -> bytes:
        """Return the constraint in wire form."""
        return bytes(_extension(SK_PROVIDER).string(self.path))

    @classmethod
    def decode(cls, reader: Reader) -> SkProvider:
        """Take what follows the extension's name."""
        return cls(reader.cstring())


Constraint: TypeAlias = Lifetime | Confirm | RestrictDestination | AssociatedCerts | SkProvider


_EXTENSIONS: dict[str, Callable[[Reader], Constraint]] = {
    RESTRICT_DESTINATION: RestrictDestination.decode,
    ASSOCIATED_CERTS: AssociatedCerts.decode,
    SK_PROVIDER: SkProvider.decode,
}


def parse_constraints(reader: Reader) -> tuple[Constraint, ...]:
    """Take constraints until the end of the message.

    Raises `UnknownConstraintError` for an unknown one, and `ProtocolError` for malformed ones and for a
    second one of the same kind.
    """
    constraints: list[Constraint] = []
    while reader.remaining:
        constraint = _read_constraint(reader)
        if any(type(earlier) is type(constraint) for earlier in constraints):
            raise ProtocolError(f"constraint {type(constraint).__name__} given twice")
        constraints.append(constraint)
    return tuple(constraints)


def _read_constraint(reader: Reader) -> Constraint:
    number = reader.byte()
    if number == ConstraintType.LIFETIME:
        return Lifetime.decode(reader)
    if number == ConstraintType.CONFIRM:
        return Confirm()
    if number != ConstraintType.EXTENSION:
        raise UnknownConstraintError(f"unknown key constraint {number}")
    name = reader.name()
    if name not in _EXTENSIONS:
        raise UnknownConstraintError(f"unknown key constraint {visible(name)}")
    return _EXTENSIONS[name](reader)


def _extension(name: str) -> Writer:
    return Writer().byte(ConstraintType.EXTENSION).text(name)


def _check_reserved(reader: Reader) -> None:
    if reader.string():
        raise ProtocolError("a reserved field of a destination constraint is not empty")
