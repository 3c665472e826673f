"""Every message of the agent protocol (RFC 9987 section 5) as a value.

`encode` returns the payload of a frame, the type byte and the contents; `decode` takes the contents.
`replug.protocol.decoding` chooses the class by the type byte. Two forms of one message decode to the same
value, and encode to the first: a boolean of 1 or of another value that is not 0, and an add request without
constraints of either of its two types.

Keys, comments and the like are bytes, which the agent interprets. Secrets are left out of `repr`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

from replug.protocol.constants import MessageType
from replug.protocol.constraints import AssociatedCerts, Constraint, SkProvider, parse_constraints
from replug.protocol.framing import frame
from replug.protocol.private_keys import PrivateKey, read_private_key
from replug.protocol.secrets import wipe
from replug.protocol.wire import ProtocolError, Reader, Writer


class _Message(ABC):
    """Common to all messages; `_write` and `decode` of each handle what follows the type byte."""

    @property
    @abstractmethod
    def type(self) -> MessageType:
        """The type byte."""

    def encode(self) -> bytes:
        """Return the payload: the type byte and the contents."""
        return bytes(self._write(Writer().byte(self.type)))

    def wipe(self) -> None:  # noqa: B027 - most have nothing to do
        """Overwrite the secrets it holds, if any; the message must not be used afterwards."""

    @abstractmethod
    def _write(self, writer: Writer) -> Writer: ...

    @classmethod
    @abstractmethod
    def decode(cls, reader: Reader) -> Self:
        """Take the contents, which follow the type byte; `ProtocolError` if they are malformed."""


@dataclass(frozen=True)
class _Empty(_Message):
    """A message that consists of its type byte."""

    def _write(self, writer: Writer) -> Writer:
        return writer

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        return cls()


class Failure(_Empty):
    """The answer to any request that was refused or not understood (section 5.1)."""

    type = MessageType.FAILURE


class Success(_Empty):
    """The answer to a request that succeeded and has no answer of its own (section 5.1)."""

    type = MessageType.SUCCESS


class RequestIdentities(_Empty):
    """List the keys (section 5.5)."""

    type = MessageType.REQUEST_IDENTITIES


class RemoveAllIdentities(_Empty):
    """Remove all keys (section 5.4)."""

    type = MessageType.REMOVE_ALL_IDENTITIES


class RemoveAllRsa1Identities(_Empty):
    """Remove all keys of SSH protocol 1; `ssh-add -D` still sends it after `RemoveAllIdentities`."""

    type = MessageType.REMOVE_ALL_RSA1_IDENTITIES


class ExtensionFailure(_Empty):
    """The answer to an extension that is known and was refused (section 5.8)."""

    type = MessageType.EXTENSION_FAILURE


@dataclass(frozen=True)
class ListedIdentity:
    """A key as the agent lists it: its blob and its comment."""

    key_blob: bytes
    comment: bytes

    @cached_property
    def encoded(self) -> bytes:
        """Its part of the payload, built once: most of a list is in the next one, too."""
        return bytes(Writer().string(self.key_blob).string(self.comment))


@dataclass(frozen=True)
class IdentitiesAnswer(_Message):
    """The keys, in answer to `RequestIdentities` (section 5.5)."""

    type = MessageType.IDENTITIES_ANSWER
    identities: tuple[ListedIdentity, ...]

    def encode(self) -> bytes:
        """Return the payload, which is built once."""
        return self._encoded

    @cached_property
    def framed(self) -> bytes:
        """The payload as it goes over the socket, built once."""
        return frame(self._encoded)

    @cached_property
    def _encoded(self) -> bytes:
        return super().encode()

    def _write(self, writer: Writer) -> Writer:
        return writer.uint32(len(self.identities)).raw(b"".join([one.encoded for one in self.identities]))

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        return cls(tuple(ListedIdentity(reader.string(), reader.string()) for _ in range(reader.uint32())))


@dataclass(frozen=True)
class SignRequest(_Message):
    """Sign `data` with a key; `flags` choose the algorithm of an RSA key (section 5.6)."""

    type = MessageType.SIGN_REQUEST
    key_blob: bytes
    data: bytes
    flags: int

    def _write(self, writer: Writer) -> Writer:
        return writer.string(self.key_blob).string(self.data).uint32(self.flags)

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        return cls(reader.string(), reader.string(), reader.uint32())


@dataclass(frozen=True)
class SignResponse(_Message):
    """A signature blob, in answer to `SignRequest` (section 5.6)."""

    type = MessageType.SIGN_RESPONSE
    signature: bytes

    def _write(self, writer: Writer) -> Writer:
        return writer.string(self.signature)

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        return cls(reader.string())


@dataclass(frozen=True)
class AddIdentity(_Message):
    """Add a private key (section 5.2); requests with constraints have a type of their own."""

    key: PrivateKey
    comment: bytes
    constraints: tuple[Constraint, ...] = ()

    @property
    def type(self) -> MessageType:
        return MessageType.ADD_ID_CONSTRAINED if self.constraints else MessageType.ADD_IDENTITY

    def _write(self, writer: Writer) -> Writer:
        writer.raw(self.key.encode()).string(self.comment)
        return _write_constraints(writer, self.constraints)

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        key, comment = read_private_key(reader), reader.cstring()
        return cls(key, comment, _read_constraints(reader, not_allowed=AssociatedCerts))


@dataclass(frozen=True)
class RemoveIdentity(_Message):
    """Remove a key (section 5.4)."""

    type = MessageType.REMOVE_IDENTITY
    key_blob: bytes

    def _write(self, writer: Writer) -> Writer:
        return writer.string(self.key_blob)

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        return cls(reader.string())


@dataclass(frozen=True)
class AddSmartcardKey(_Message):
    """Add the keys of a token (section 5.2.6); requests with constraints have a type of their own.

    `provider` is the path of a PKCS#11 module, or whatever else the agent accepts in its place.
    """

    provider: bytes
    pin: bytes | bytearray = field(repr=False)
    constraints: tuple[Constraint, ...] = ()

    @property
    def type(self) -> MessageType:
        if self.constraints:
            return MessageType.ADD_SMARTCARD_KEY_CONSTRAINED
        return MessageType.ADD_SMARTCARD_KEY

    def _write(self, writer: Writer) -> Writer:
        writer.string(self.provider).string(self.pin)
        return _write_constraints(writer, self.constraints)

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        provider, pin = reader.cstring(), reader.secret()
        return cls(provider, pin, _read_constraints(reader, not_allowed=SkProvider))

    def wipe(self) -> None:
        _wipe(self.pin)


@dataclass(frozen=True)
class RemoveSmartcardKey(_Message):
    """Remove the keys of a token (section 5.4)."""

    type = MessageType.REMOVE_SMARTCARD_KEY
    provider: bytes
    pin: bytes | bytearray = field(repr=False)

    def _write(self, writer: Writer) -> Writer:
        return writer.string(self.provider).string(self.pin)

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        return cls(reader.cstring(), reader.secret())

    def wipe(self) -> None:
        _wipe(self.pin)


@dataclass(frozen=True)
class _Passphrase(_Message):
    """A message that carries a passphrase."""

    passphrase: bytes | bytearray = field(repr=False)

    def _write(self, writer: Writer) -> Writer:
        return writer.string(self.passphrase)

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        return cls(reader.secret())

    def wipe(self) -> None:
        _wipe(self.passphrase)


class Lock(_Passphrase):
    """Refuse everything until unlocked with the same passphrase (section 5.7)."""

    type = MessageType.LOCK


class Unlock(_Passphrase):
    """Undo `Lock` (section 5.7)."""

    type = MessageType.UNLOCK


@dataclass(frozen=True)
class _Named(_Message):
    """A message whose name determines the format of its contents."""

    name: str
    contents: bytes

    def _write(self, writer: Writer) -> Writer:
        return writer.text(self.name).raw(self.contents)

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        return cls(reader.name(), reader.rest())


class Extension(_Named):
    """A request outside the base protocol (section 5.8); see `replug.protocol.extensions`."""

    type = MessageType.EXTENSION


class ExtensionResponse(_Named):
    """The answer of an extension that defines one (section 5.8)."""

    type = MessageType.EXTENSION_RESPONSE


def _wipe(secret: bytes | bytearray) -> None:
    if isinstance(secret, bytearray):
        wipe(secret)


def _write_constraints(writer: Writer, constraints: tuple[Constraint, ...]) -> Writer:
    return writer.raw(b"".join(constraint.encode() for constraint in constraints))


def _read_constraints(reader: Reader, not_allowed: type[Constraint]) -> tuple[Constraint, ...]:
    constraints = parse_constraints(reader)
    if any(isinstance(constraint, not_allowed) for constraint in constraints):
        raise ProtocolError(f"constraint {not_allowed.__name__} does not belong in this request")
    return constraints
