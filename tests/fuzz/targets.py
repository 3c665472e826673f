"""What is fuzzed: a target is its seeds and a function that takes any bytes, and must not mind them."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz import authority

from replug.agent.keys.software_worker import Operations
from replug.protocol.additions import KeyAddition
from replug.protocol.certificates import Certificate
from replug.protocol.constraints import parse_constraints
from replug.protocol.decoding import decode_request, decode_response
from replug.protocol.extensions import QueryResponse, SessionBind
from replug.protocol.framing import MessageReader, frame
from replug.protocol.keys import fingerprint, parse_any_public_key
from replug.protocol.known_hosts import KnownHosts
from replug.protocol.messages import (
    AddIdentity,
    AddSmartcardKey,
    Extension,
    IdentitiesAnswer,
    SignRequest,
)
from replug.protocol.private_keys import read_private_key
from replug.protocol.purpose import CertificateToSign, Host, Login, OtherData, UnboundLogin, purpose_of
from replug.protocol.purpose_text import in_one_line
from replug.protocol.receive_buffer import ReceiveBuffer
from replug.protocol.sessions import BindError, Binding, Sessions, verify_bind
from replug.protocol.signatures import Signature
from replug.protocol.signed_data import HostKeyProof, SshSignature
from replug.protocol.userauth import UserauthRequest
from replug.protocol.wire import ProtocolError, Reader
from replug.token.keys import read_keys
from replug.token.names.uri import UriError, parse_uri
from replug.token.worker.frames import FrameError, FrameReader, encode
from replug.token.worker.inside.loop import RefusedError

_MESSAGES = Path(__file__).parent.parent / "messages"
_KNOWN_URIS = (
    b"pkcs11:token=work;id=%01?module-path=/usr/lib/x.so",
    b"pkcs11:manufacturer=a;model=b;serial=c;object=d;type=private?module-name=opensc&pin-source=file:/x",
    b"pkcs11:",
)
_HEADERS = (
    b'{"kind":"edwards","material":["06032b6570","00"],"id":"01","label":"x","reference":"y",'
    b'"signs":true,"always_authenticate":false}',
    b'{"kind":"rsa","material":["ff","03"],"id":"","label":"","reference":"","signs":1,"always_authenticate":0}',
    b'{"kind":"ec","material":["06082a8648ce3d030107","0441"],"id":"","label":"","reference":"","signs":false,'
    b'"always_authenticate":true}',
    b'{"kind":"x509","material":["3000"],"id":"","label":"","reference":"","signs":true,'
    b'"always_authenticate":false}',
)


@dataclass(frozen=True)
class Target:
    """A parser: raising one of `refusals` is its right, and anything else is a fault."""

    seeds: list[bytes]
    parse: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...] = (ProtocolError,)

    def __call__(self, data: bytes) -> None:
        with contextlib.suppress(*self.refusals):
            self.parse(data)


def recorded(folder: str, pattern: str = "*") -> list[bytes]:
    """The recorded messages, type byte first."""
    found = [path.read_bytes() for path in sorted((_MESSAGES / folder).glob(f"{pattern}.bin"))]
    assert found
    return found


def _same_again(decode: Callable[[bytes], object], data: bytes) -> None:
    """What was understood is written so that it is understood the same."""
    value = decode(data)
    assert decode(value.encode()) == value  # type: ignore[attr-defined]


def _request(data: bytes) -> None:
    _same_again(decode_request, data)
    received = bytearray(data)
    decode_request(received)
    assert received == data


def _framed(data: bytes) -> None:
    """The messages of a connection, received in pieces, are the same that come out at once."""
    assert _messages(data, 7) == _messages(data, len(data))


def _messages(data: bytes, at_once: int) -> list[bytes]:
    reader, messages = MessageReader(), []
    while data and not reader.full:
        data = _receive(reader, data, at_once)
        messages += [bytes(message) for message in iter(reader.take, None)]
    buffer = reader._buffer
    reader.wipe()
    assert not any(buffer)
    return messages


def _worker_frame(data: bytes) -> None:
    """A frame of a worker, received in pieces."""
    reader = FrameReader()
    while data:
        data = _receive(reader, data, 7)
        if reader.take() is not None:
            assert not any(reader._buffer)


def _receive(reader: ReceiveBuffer, data: bytes, at_once: int) -> bytes:
    """Fill the reader with at most so many bytes; the rest."""
    with reader.writable() as space:
        count = min(len(space), len(data), at_once)
        space[:count] = data[:count]
    reader.received(count)
    return data[count:]


def _keys_of(header: bytes) -> None:
    reader = FrameReader()
    data = len(header).to_bytes(4, "big") + bytes(4) + header
    while data:
        data = _receive(reader, data, len(data))
    answer = reader.take()
    if answer is not None:
        read_keys([answer[0]])


def _purpose(data: bytes) -> None:
    """It is of one form, exactly; and whatever it is, there are words for it."""
    for key in _SIGNERS:
        purpose = purpose_of(data, key, _SESSIONS, _HOSTS, 0)
        assert in_one_line(purpose).isprintable()
        match purpose.signed:
            case CertificateToSign(certificate):
                assert certificate.body() == data
            case SshSignature() | HostKeyProof() as signed:
                assert signed.encode() == data
            case Login() | UnboundLogin():
                assert UserauthRequest.decode(data).encode() == data
            case OtherData(size):
                assert size == len(data)


def _known_hosts(data: bytes) -> None:
    hosts = KnownHosts([data])
    for key in _SIGNERS:
        hosts.known_as(key, ["localhost"])


def _requests(kind: type) -> list[bytes]:
    return [message for message in recorded("requests") if isinstance(decode_request(message), kind)]


def _decoded(kind: type) -> list:
    return [decode_request(message) for message in _requests(kind)]


def _certificates() -> list[bytes]:
    added = [request.key for request in _decoded(AddIdentity)]
    return [key.blob for key in added if key.certificate is not None]


_BLOBS = [
    identity.key_blob
    for answer in map(decode_response, recorded("responses", "identities-*"))
    if isinstance(answer, IdentitiesAnswer)
    for identity in answer.identities
]

_SIGNERS = list(dict.fromkeys(request.key_blob for request in _decoded(SignRequest)))
_LOGIN = UserauthRequest.decode(decode_request(recorded("requests", "sign-login")[0]).data)  # type: ignore[union-attr]
_SESSIONS = Sessions((Binding(_LOGIN.host_key or b"", _LOGIN.session_id, False),), bind_attempted=True)
_KNOWN_HOSTS = [
    b"".join(
        hosts + b" " + blob[4 : 4 + blob[3]] + b" " + base64.b64encode(blob) + b"\n"
        for blob in _SIGNERS
        for hosts in (b"localhost,[127.0.0.1]:22,*.example.org,!x", b"@cert-authority *", b"@revoked *")
    ),
    b"|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= ssh-ed25519 AAAA\n# comment\n",
]
_HOSTS = tuple(
    Host(bound.host_key, KnownHosts(_KNOWN_HOSTS).known_as(bound.host_key)) for bound in _SESSIONS.bindings
)

TARGETS: dict[str, Target] = {
    "requests": Target(recorded("requests"), _request),
    "responses": Target(recorded("responses"), lambda data: _same_again(decode_response, data)),
    "constraints": Target(
        [
            b"".join(constraint.encode() for constraint in request.constraints)
            for request in _decoded(AddIdentity) + _decoded(AddSmartcardKey)
            if request.constraints
        ],
        lambda data: parse_constraints(Reader(data)),
    ),
    "private keys": Target(
        [request.key.encode() for request in _decoded(AddIdentity)],
        lambda data: read_private_key(Reader(data)).encode(),
    ),
    "keys to add": Target(
        _requests(AddIdentity), lambda data: KeyAddition.decode(bytearray(data)), (ProtocolError,)
    ),
    "software keys": Target(
        _requests(AddIdentity),
        lambda data: Operations().add({"key": "00", "new": True}, bytearray(data)),
        (RefusedError,),
    ),
    "certificates": Target(_certificates(), lambda data: _same_again(Certificate.decode, data)),
    "certificates' signatures": Target(
        _certificates(), lambda data: Certificate.decode(data).verify_signature()
    ),
    "key blobs": Target(_BLOBS, lambda data: (fingerprint(data), parse_any_public_key(data))),
    "signatures": Target(
        [decode_response(message).signature for message in recorded("responses", "sign-*")],  # type: ignore[union-attr]
        lambda data: _same_again(Signature.decode, data),
    ),
    "logins": Target(
        [request.data for request in _decoded(SignRequest) if b"ssh-connection" in request.data],
        lambda data: _same_again(UserauthRequest.decode, data),
    ),
    "purposes": Target([request.data for request in _decoded(SignRequest)], _purpose, ()),
    "CA keys": Target(authority.BODIES, authority.check, ()),
    "known_hosts": Target(list(_KNOWN_HOSTS), _known_hosts, ()),
    "session-bind": Target(
        [request.contents for request in _decoded(Extension) if request.name.startswith("session-bind")],
        lambda data: verify_bind(SessionBind.decode(data)),
        (ProtocolError, BindError),
    ),
    "query": Target(
        [QueryResponse(("a", "b")).encode()], lambda data: _same_again(QueryResponse.decode, data)
    ),
    "URIs": Target(list(_KNOWN_URIS), lambda data: parse_uri(data.decode()), (UriError, UnicodeDecodeError)),
    "frames": Target([b"".join(map(frame, recorded("requests")[:5])), frame(bytes(5000))], _framed),
    "workers' frames": Target(
        [bytes(encode({"keys": []}, b"body")), bytes(encode({}, bytes(5000)))], _worker_frame, (FrameError,)
    ),
    "workers' answers": Target(list(_HEADERS), _keys_of, (FrameError,)),
}
