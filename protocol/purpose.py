"""What a signature is for: read from the data to be signed and the sessions that its connection is bound to.

Every form here is parsed exactly: a byte too many, and it is not that form. No two forms share a first field,
so data is never taken for two of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeAlias

from replug.protocol.certificates import Certificate, CertificateType
from replug.protocol.keys import fingerprint, is_certificate, plain_blob
from replug.protocol.known_hosts import KnownAs
from replug.protocol.sessions import Sessions
from replug.protocol.signed_data import HOST_KEY_PROOF, SSHSIG_MAGIC, HostKeyProof, SshSignature
from replug.protocol.userauth import USERAUTH_REQUEST, UserauthRequest
from replug.protocol.wire import ProtocolError

FOREVER = 2**64 - 1
"""The end of a certificate that has none (PROTOCOL.certkeys)."""


@dataclass(frozen=True)
class Host:
    """A host that proved in a session that it holds this key."""

    key: bytes
    known: KnownAs | None
    """What known_hosts says about the key or certificate; None if that cannot be told."""
    claimed_name: str = ""
    """What the destination constraints of the key call it; whoever added the key has chosen that."""
    fingerprint: str = field(init=False)
    """That of the key, also where the host has a certificate."""

    def __post_init__(self) -> None:
        # Here, as a host is known from the session-bind on and each of its logins names it.
        object.__setattr__(self, "fingerprint", fingerprint(self.key))

    @property
    def is_known(self) -> bool:
        """Whether it is in known_hosts."""
        return self.known is not None and (bool(self.known.names) or self.known.hashed)


@dataclass(frozen=True)
class Login:
    """A login in the session the connection is bound to, so at this host and no other."""

    host: Host
    user: str


@dataclass(frozen=True)
class UnboundLogin:
    """A login in a session of which the agent does not know where it leads."""

    user: str
    why: str
    """Why that is not known."""
    claimed_host_key: bytes | None
    """The host key that the client wrote into the request; nothing has verified it."""


@dataclass(frozen=True)
class CertificateToSign:
    """A certificate without its CA's signature, which is what is asked for."""

    certificate: Certificate
    """With an empty signature."""
    asked_at: int
    """Seconds since 1970."""
    login_at: Host | None = None
    """The host that the agent itself wants it for; None if a client asks, who says no such thing."""

    @property
    def is_for_host(self) -> bool:
        """Whether it is a host certificate."""
        return self.certificate.type is CertificateType.HOST

    @property
    def seconds_left(self) -> int | None:
        """How long it is valid from now, however far back its beginning lies; None for ever."""
        end = self.certificate.valid_before
        return None if end == FOREVER else max(0, end - self.asked_at)


@dataclass(frozen=True)
class OtherData:
    """Data of no known form."""

    size: int
    """In bytes."""
    resembles: str
    """The known form it starts like, and why it is not of that form; empty if it starts like none."""


Signed: TypeAlias = Login | UnboundLogin | SshSignature | CertificateToSign | HostKeyProof | OtherData


@dataclass(frozen=True)
class Purpose:
    """What one signature is for, and whether somebody on another host asks for it."""

    signed: Signed
    forwarded_to: tuple[Host, ...]
    """The hosts that the agent is forwarded to, the nearest first. That one alone is reported by the user's
    own ssh; what lies beyond it is what programs there say."""
    unverified: bool
    """A session-bind was attempted that did not hold: the request may come from anywhere."""
    view: str = ""
    """The path of the socket that it came over, if that is one for some of the keys: anybody may use it."""

    def named(self, host_name: str) -> Purpose:
        """Return it with what a destination constraint calls the host, where known_hosts has no name."""
        match self.signed:
            case Login(Host(known=known) as host, user) if known is None or not known.names:
                return replace(self, signed=Login(replace(host, claimed_name=host_name), user))
        return self

    @property
    def is_login(self) -> bool:
        """Whether it is a login at a host that is known by its key."""
        return isinstance(self.signed, Login)

    @property
    def login_at(self) -> Host | None:
        """The host that it, or the certificate that is signed, is to log in at, by its proven key."""
        match self.signed:
            case Login(host):
                return host
            case CertificateToSign(login_at=host):
                return host
        return None

    @property
    def forwarded(self) -> bool:
        """Whether it is, or may be, asked for by a program on another host."""
        return bool(self.forwarded_to) or self.unverified or bool(self.view)


def purpose_of(
    data: bytes, key_blob: bytes, sessions: Sessions, hosts: tuple[Host, ...], now: int
) -> Purpose:
    """Return what a signature of `data` by the key is for; `now` is in seconds since 1970.

    `hosts` are those of the bindings of `sessions`, in the same order. Takes time linear in the data's size.
    """
    forwarding = tuple(
        host for host, bound in zip(hosts, sessions.bindings, strict=True) if bound.is_forwarding
    )
    form = _form(data)
    try:
        signed: Signed | None = _read(form, data, key_blob, sessions, hosts, now)
    except ProtocolError as error:
        signed = OtherData(len(data), f"{form} ({error})")
    return Purpose(signed or OtherData(len(data), ""), forwarding, sessions.unverified)


_LOGIN, _CERTIFICATE, _SSHSIG, _PROOF = "a login", "a certificate", "an SSHSIG", "a host key proof"


def _form(data: bytes) -> str:
    """The form that the data starts like; empty if it starts like none.

    A login starts with a session identifier, which may read like anything, and the byte 50. Where other
    forms have a string after their first one, that byte would be a length of 800 MB.
    """
    if data.startswith(SSHSIG_MAGIC):
        return _SSHSIG
    end = 4 + int.from_bytes(data[:4], "big")
    if end >= len(data):
        return ""
    if data[end] == USERAUTH_REQUEST:
        return _LOGIN
    first = data[4:end]
    if first == HOST_KEY_PROOF:
        return _PROOF
    return _CERTIFICATE if is_certificate(first.decode(errors="replace")) else ""


def _read(
    form: str, data: bytes, key_blob: bytes, sessions: Sessions, hosts: tuple[Host, ...], now: int
) -> Signed | None:
    if form == _LOGIN:
        request = UserauthRequest.decode(data)
        if request.key_blob != key_blob and not _same_plain_key(request.key_blob, key_blob):
            raise ProtocolError("by another key")
        why = _why_unbound(request, sessions)
        if why:
            return UnboundLogin(request.user, why, request.host_key)
        return Login(hosts[-1], request.user)
    if form == _CERTIFICATE:
        certificate = Certificate.decode_body(data)
        if certificate.ca_key != key_blob and not _same_plain_key(certificate.ca_key, key_blob):
            raise ProtocolError("by another CA key")
        return CertificateToSign(certificate, now)
    if form == _SSHSIG:
        return SshSignature.decode(data)
    if form == _PROOF:
        proof = HostKeyProof.decode(data)
        if proof.host_key != key_blob and not _same_plain_key(proof.host_key, key_blob):
            raise ProtocolError("of another key")
        return proof
    return None


def _same_plain_key(named: bytes, key_blob: bytes) -> bool:
    """Whether they are one key: of one that has a certificate, a client may ask by either name."""
    return plain_blob(named) == plain_blob(key_blob)


def _why_unbound(request: UserauthRequest, sessions: Sessions) -> str:
    """Why it is not known where a login leads; empty if it is."""
    if not sessions.bindings:
        return "the connection is bound to no session"
    last = sessions.bindings[-1]
    if request.session_id != last.session_id:
        return "it is in another session than the one the connection is bound to"
    if last.is_forwarding:
        return "the session is one the agent is forwarded in"
    if request.host_key not in (None, last.host_key):
        return "it names another host key than the session's"
    return ""
