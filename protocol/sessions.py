"""The SSH sessions a connection speaks for, and what they let it do with a key restricted to destinations.

ssh tells the agent of every session and of the host key that has proved itself in it (session-bind, OpenSSH's
PROTOCOL.agent), before it asks for anything. All rules about that are here, each as ssh-agent.c has it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from replug.protocol.certificates import Certificate, CertificateType
from replug.protocol.constants import MAX_BINDINGS
from replug.protocol.constraints import DestinationConstraint, Hop
from replug.protocol.extensions import SessionBind
from replug.protocol.keys import blob_algorithm, fingerprint, is_certificate, parse_any_public_key
from replug.protocol.patterns import LimitedMatching
from replug.protocol.signatures import verify_any
from replug.protocol.userauth import UserauthRequest
from replug.protocol.visible_text import visible
from replug.protocol.wire import ProtocolError, Reader

_CA_ALGORITHM_TOO_WEAK = "ssh-rsa"  # SHA-1


class BindError(ProtocolError):
    """The session-bind does not hold; nothing is recorded."""


class DestinationError(ProtocolError):
    """The key is not for this use; the text says what it was to be used for."""


@dataclass(frozen=True)
class Binding:
    """One session: the host key that proved itself, and whether the connection is forwarded through it."""

    host_key: bytes
    """A key or certificate blob."""
    session_id: bytes
    is_forwarding: bool

    def __str__(self) -> str:
        return f"host key {fingerprint(self.host_key)}"

    @cached_property
    def certificate(self) -> HostCertificate | None:
        """The certificate that the host key is; None for a plain key."""
        if not is_certificate(blob_algorithm(self.host_key)):
            return None
        return HostCertificate(Certificate.decode(self.host_key))


class HostCertificate:
    """For which host names a certificate is good; what patterns tell of a name is remembered.

    It is asked for each constraint of each key at each listing, and who made the certificate may have made
    the constraints too.
    """

    def __init__(self, certificate: Certificate) -> None:
        self.ca_key = certificate.ca_key
        self._certificate = certificate
        # Its name alone: what follows depends on it.
        self._is_usable = (
            certificate.type is CertificateType.HOST
            and not certificate.critical_options
            and Reader(certificate.signature).text() != _CA_ALGORITHM_TOO_WEAK
        )
        names = [name.decode(errors="replace") for name in certificate.principals]
        self._patterns = [name for name in names if "*" in name or "?" in name]
        self._names = set(names).difference(self._patterns)
        self._fitting: dict[str, bool] = {}
        self._matching = LimitedMatching()

    def certifies(self, host_name: str) -> bool:
        """Whether it is good for this host, now [sshkey_cert_check_host]; principals are patterns."""
        certificate = self._certificate
        if not self._is_usable or not certificate.valid_after <= time.time() < certificate.valid_before:
            return False
        if host_name in self._names:
            return True
        fits = self._fitting.get(host_name)
        if fits is None:
            fits = any(self._matching.matches(host_name, pattern) for pattern in self._patterns)
            if self._patterns and not self._matching.at_limit:
                self._fitting[host_name] = fits
        return fits


@dataclass(frozen=True)
class Sessions:
    """What a connection was bound to, the first hop first."""

    bindings: tuple[Binding, ...] = ()
    bind_attempted: bool = False
    """Whether a bind was tried at all: if none held, the connection is trusted with nothing restricted."""


@dataclass(frozen=True)
class SignDestination:
    """What a permitted signature is for: a login as `user`, at the host a constraint calls `host_name`."""

    user: str
    host_name: str


def verify_bind(bind: SessionBind) -> Binding:
    """Return the binding, if the host key signed the session identifier [process_ext_session_bind].

    Of a certificate it is the key inside that signs, and the CA's signature must be right too. Raises
    `BindError`. Slow for large RSA keys.
    """
    try:
        if is_certificate(blob_algorithm(bind.host_key)):
            certificate = Certificate.decode(bind.host_key)
            certificate.verify_signature()
            key = certificate.key
        else:
            key = parse_any_public_key(bind.host_key)
        verify_any(key, bind.signature, bind.session_id)
    except ProtocolError as error:
        raise BindError(f"the host key does not vouch for the session: {error}") from error
    return Binding(bind.host_key, bind.session_id, bind.is_forwarding)


def add_binding(bindings: tuple[Binding, ...], new: Binding) -> tuple[Binding, ...]:
    """Return the bindings with a new one, or as they are if they have it; `BindError` if it cannot be.

    Once bound to log in somewhere, a connection stays so.
    """
    for earlier in bindings:
        if not earlier.is_forwarding:
            raise BindError("the connection is bound to a login already")
        if earlier.session_id == new.session_id:
            if earlier.host_key == new.host_key:
                return bindings
            raise BindError("the session is bound to another host key already")
    if len(bindings) >= MAX_BINDINGS:
        raise BindError(f"more than {MAX_BINDINGS} sessions")
    return (*bindings, new)


def permitted(
    constraints: Sequence[DestinationConstraint], sessions: Sessions, user: str | None = None
) -> bool:
    """Tell whether a key with these constraints is there for a connection [identity_permitted].

    `user` is whom it is to log in as, for signing; without one the question is whether it is listed.
    """
    if not constraints:
        return True
    if not sessions.bindings:
        return not sessions.bind_attempted
    return _permitting(constraints, sessions.bindings, user) is not None


def check_sign(
    constraints: Sequence[DestinationConstraint], sessions: Sessions, key_blob: bytes, data: bytes
) -> SignDestination:
    """Return what the signature is for [process_sign_request2]; `DestinationError` if the key is not."""
    key = f"key {fingerprint(key_blob)} is restricted to destinations"
    if not sessions.bindings:
        raise DestinationError(f"{key}, and the connection is bound to no session")
    try:
        request = UserauthRequest.decode(data)
    except ProtocolError as error:
        raise DestinationError(f"{key}, and what is to be signed is no login ({error})") from error
    last = sessions.bindings[-1]
    if request.key_blob != key_blob:
        raise DestinationError(f"{key}, and the login to be signed is by another key")
    constraint = _permitting(constraints, sessions.bindings, request.user)
    if constraint is None:
        raise DestinationError(
            f"{key}, and not for user {visible(request.user)} at {describe_destination(sessions)}"
        )
    if request.session_id != last.session_id:
        raise DestinationError(f"{key}, and the login is for another session than the connection")
    if request.host_key is None and len(sessions.bindings) > 1:
        raise DestinationError(f"{key}, and the login over a forwarded connection names no host key")
    if request.host_key not in (None, last.host_key):
        raise DestinationError(f"{key}, and the login is for another host than the connection")
    return SignDestination(request.user, constraint.to_hop.hostname)


def describe_destination(sessions: Sessions) -> str:
    """Return where a connection leads, in words; empty if it was bound to nothing."""
    if not sessions.bindings:
        return ""
    *over, last = sessions.bindings
    return ", forwarded over ".join(str(binding) for binding in (last, *reversed(over)))


def _permitting(
    constraints: Sequence[DestinationConstraint], bindings: tuple[Binding, ...], user: str | None
) -> DestinationConstraint | None:
    """The constraint that permits the last hop; None if one of the hops is not permitted."""
    *over, last = bindings
    if not all(binding.is_forwarding for binding in over):
        return None
    if last.is_forwarding and user is not None:
        return None
    users = LimitedMatching()
    before: Binding | None = None
    found: DestinationConstraint | None = None
    for binding in bindings:
        found = _constraint_for(constraints, before, binding, user if binding is last else None, users)
        if found is None:
            return None
        before = binding
    # A key that is only for logging in to that host is not shown beyond it.
    if last.is_forwarding and _constraint_for(constraints, last, None, None, users) is None:
        return None
    return found


def _constraint_for(
    constraints: Sequence[DestinationConstraint],
    before: Binding | None,
    to: Binding | None,
    user: str | None,
    users: LimitedMatching,
) -> DestinationConstraint | None:
    """The first that leads from host `before` (None: from here) to `to` (None: anywhere) as `user`.

    [permitted_by_dest_constraints]
    """
    for constraint in constraints:
        if before is None:
            if constraint.from_hop.hostname or constraint.from_hop.keys:
                continue
        elif not _fits(before, constraint.from_hop):
            continue
        if to is not None and not _fits(to, constraint.to_hop):
            continue
        pattern = constraint.to_hop.user
        if pattern and user is not None and not users.matches(user, pattern):
            continue
        return constraint
    return None


def _fits(binding: Binding, hop: Hop) -> bool:
    """Whether a host key is one of the hop's, or a host certificate is by one of its CAs [match_key_hop]."""
    certificate = binding.certificate
    if certificate is None:
        return any(not key.is_ca and key.blob == binding.host_key for key in hop.keys)
    by_its_ca = any(key.is_ca and key.blob == certificate.ca_key for key in hop.keys)
    return by_its_ca and certificate.certifies(hop.hostname)
