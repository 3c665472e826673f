"""The contents of extension messages: OpenSSH's session-bind and RFC 9987's query (section 5.8.1)."""

from __future__ import annotations

from dataclasses import dataclass

from replug.protocol.constants import MAX_HOST_KEY, MAX_SESSION_ID
from replug.protocol.wire import ProtocolError, Reader, Writer

SESSION_BIND = "session-bind@openssh.com"
QUERY = "query"


@dataclass(frozen=True)
class SessionBind:
    """What ssh reports about the session it acts for: the host key and its signature over the identifier.

    `host_key` is a key or certificate blob. The signature is not verified here.
    """

    host_key: bytes
    session_id: bytes
    signature: bytes
    is_forwarding: bool

    def __post_init__(self) -> None:
        if len(self.session_id) > MAX_SESSION_ID:
            raise ProtocolError(f"session identifier of more than {MAX_SESSION_ID} bytes")
        if len(self.host_key) > MAX_HOST_KEY:
            raise ProtocolError(f"host key of more than {MAX_HOST_KEY} bytes")

    def encode(self) -> bytes:
        """Return the contents of the extension message."""
        writer = Writer().string(self.host_key).string(self.session_id).string(self.signature)
        return bytes(writer.boolean(self.is_forwarding))

    @classmethod
    def decode(cls, contents: bytes) -> SessionBind:
        """Parse such contents; `ProtocolError` if they are malformed."""
        reader = Reader(contents)
        bind = cls(reader.string(), reader.string(), reader.string(), reader.boolean())
        reader.check_end()
        return bind


@dataclass(frozen=True)
class QueryResponse:
    """The names of the extensions an agent supports."""

    names: tuple[str, ...]

    def encode(self) -> bytes:
        """Return the contents of the extension response."""
        return bytes(Writer().strings(name.encode() for name in self.names))

    @classmethod
    def decode(cls, contents: bytes) -> QueryResponse:
        """Return the names in such contents; `ProtocolError` if they are malformed."""
        reader, names = Reader(contents), []
        while reader.remaining:
            names.append(reader.text())
        return cls(tuple(names))
