"""The SSH sessions a connection acts for, and what they permit with a key restricted to destinations.

ssh reports every session and the host key proved in it (session-bind, OpenSSH's PROTOCOL.agent) before any
other request. All rules about sessions are here, each as in ssh-agent.c.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from replug.protocol.certificates import Certificate, CertificateType
from replug.protocol.constants import MAX_BINDINGS, MAX_HOST_KEYS, MAX_USER
from replug.protocol.constraints import DestinationConstraint, Hop
from replug.protocol.extensions import SessionBind
from replug.protocol.keys import blob_algorithm, fingerprint, is_certificate, parse_any_public_key
from replug.protocol.patterns import matches
from replug.protocol.signatures import verify_any
from replug.protocol.userauth import UserauthRequest
from replug.protocol.visible_text import visible
from replug.protocol.wire import ProtocolError, Reader

_CA_ALGORITHM_TOO_WEAK = "ssh-rsa"  # SHA-1
_MAX_PATTERNS = 4
"""Patterns among the principals of a host certificate that count, besides those for endings of names."""


class BindError(ProtocolError):
    """The session-bind is not valid; nothing is recorded."""


class DestinationError(ProtocolError):
    """The key may not be used for this; the text gives the reason."""


@dataclass(frozen=True)
class Binding:
    """One session: the proved host key, and whether the connection is forwarded through it."""

    host_key: bytes
    """A key or certificate blob."""
    session_id: bytes
    is_forwarding: bool

    def __str__(self) -> str:
        return f"host key {fingerprint(self.host_key)}"

    @cached_property
    def certificate(self) -> HostCertificate | None:
        """The host key as a certificate; None for a plain key."""
        if not is_certificate(blob_algorithm(self.host_key)):
            return None
        return HostCertificate(Certificate.decode(self.host_key))


class HostCertificate:
    """Decides for which host names a certificate is valid."""

    def __init__(self, certificate: Certificate) -> None:
        self.ca_key = certificate.ca_key
        self._certificate = certificate
        # Only the algorithm's name is read: the rest of a signature depends on it.
        self._is_usable = (
            certificate.type is CertificateType.HOST
            and not certificate.critical_options
            and Reader(certificate.signature).text() != _CA_ALGORITHM_TOO_WEAK
        )
        names = [name.decode(errors="replace") for name in certificate.principals]
        self._names = frozenset(names)
        patterns = [name for name in names if _has_wildcard(name)]
        # "*.example.org", as nearly all patterns are, costs no more than a name, however many there are.
        self._endings = tuple(name[1:] for name in patterns if _is_for_endings(name))
        self._others = [name for name in patterns if not _is_for_endings(name)][:_MAX_PATTERNS]

    def certifies(self, host_name: str) -> bool:
        """Whether it is valid for this host now [sshkey_cert_check_host since 10.3: with patterns]."""
        certificate = self._certificate
        if not self._is_usable or not certificate.valid_after <= time.time() < certificate.valid_before:
            return False
        return (
            host_name in self._names
            or host_name.endswith(self._endings)
            or any(matches(host_name, pattern) for pattern in self._others)
        )


def _has_wildcard(name: str) -> bool:
    return "*" in name or "?" in name


def _is_for_endings(pattern: str) -> bool:
    return pattern.startswith("*") and not _has_wildcard(pattern[1:])


@dataclass(frozen=True)
class Sessions:
    """The sessions a connection is bound to, first hop first."""

    bindings: tuple[Binding, ...] = ()
    bind_attempted: bool = False
    """Whether a bind was attempted."""
    bind_failed: bool = False
    """Whether the first attempt was not valid: there is a session that nothing is known of."""

    @property
    def unverified(self) -> bool:
        """Whether the connection may lead anywhere, so that it may not use any restricted key.

        Further binds change nothing: a host that the agent is forwarded to can make those, and it may be
        the one whose key could not be verified. (ssh-agent forgets the failure.)
        """
        return self.bind_failed or (self.bind_attempted and not self.bindings)


@dataclass(frozen=True)
class SignDestination:
    """The purpose of a permitted signature: a login as `user` at the host a constraint calls `host_name`."""

    user: str
    host_name: str


def verify_bind(bind: SessionBind) -> Binding:
    """Return the binding if the host key signed the session identifier [process_ext_session_bind].

    For a certificate the certified key signs, and the CA's signature is verified as well. Raises `BindError`.
    Slow for large RSA keys.
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
        raise BindError(f"the host key does not prove the session: {error}") from error
    return Binding(bind.host_key, bind.session_id, bind.is_forwarding)


def add_binding(bindings: tuple[Binding, ...], new: Binding) -> tuple[Binding, ...]:
    """Return the bindings with `new` added, or unchanged if it is there; `BindError` if not allowed.

    After a binding that does not forward (a login) no other is accepted.
    """
    for earlier in bindings:
        if not earlier.is_forwarding:
            raise BindError("the connection is already bound to a login")
        if earlier.session_id == new.session_id:
            if earlier.host_key == new.host_key:
                return bindings
            raise BindError("the session is already bound to another host key")
    if len(bindings) >= MAX_BINDINGS:
        raise BindError(f"more than {MAX_BINDINGS} sessions")
    if sum(len(bound.host_key) for bound in (*bindings, new)) > MAX_HOST_KEYS:
        raise BindError(f"host keys of more than {MAX_HOST_KEYS} bytes")
    return (*bindings, new)


def permitted(
    constraints: Sequence[DestinationConstraint], sessions: Sessions, user: str | None = None
) -> bool:
    """Return whether a connection may use a key with these constraints [identity_permitted].

    `user` is the user to log in as, for signing; without one the question is whether the key is listed.
    """
    if not constraints:
        return True
    if sessions.unverified:
        return False
    if not sessions.bindings:
        return True
    return _permitting(constraints, sessions.bindings, user) is not None


def check_sign(
    constraints: Sequence[DestinationConstraint], sessions: Sessions, key_blob: bytes, data: bytes
) -> SignDestination:
    """Return what the signature is for [process_sign_request2]; `DestinationError` if not permitted."""
    key = f"key {fingerprint(key_blob)} is restricted to destinations"
    if not sessions.bindings:
        raise DestinationError(f"{key}, and the connection is bound to no session")
    if sessions.unverified:
        raise DestinationError(f"{key}, and a session of the connection could not be verified")
    try:
        request = UserauthRequest.decode(data)
    except ProtocolError as error:
        raise DestinationError(f"{key}, and the data to sign is not a login ({error})") from error
    if len(request.user.encode()) > MAX_USER:
        raise DestinationError(f"{key}, and the login is for a user name of more than {MAX_USER} bytes")
    last = sessions.bindings[-1]
    if request.key_blob != key_blob:
        raise DestinationError(f"{key}, and the login to be signed is by another key")
    constraint = _permitting(constraints, sessions.bindings, request.user)
    if constraint is None:
        raise DestinationError(
            f"{key}, which exclude user {visible(request.user)} at {describe_destination(sessions)}"
        )
    if request.session_id != last.session_id:
        raise DestinationError(f"{key}, and the login is for another session than the connection")
    if request.host_key is None and len(sessions.bindings) > 1:
        raise DestinationError(f"{key}, and the login over a forwarded connection names no host key")
    if request.host_key not in (None, last.host_key):
        raise DestinationError(f"{key}, and the login is for another host than the connection")
    return SignDestination(request.user, constraint.to_hop.hostname)


def describe_destination(sessions: Sessions) -> str:
    """Return where a connection leads, in words; empty if it is not bound."""
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
    before: Binding | None = None
    found: DestinationConstraint | None = None
    for binding in bindings:
        found = _constraint_for(constraints, before, binding, user if binding is last else None)
        if found is None:
            return None
        before = binding
    # A key that only permits a login to that host is not listed there.
    if last.is_forwarding and _constraint_for(constraints, last, None, None) is None:
        return None
    return found


def _constraint_for(
    constraints: Sequence[DestinationConstraint],
    before: Binding | None,
    to: Binding | None,
    user: str | None,
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
        if pattern and user is not None and not matches(user, pattern):
            continue
        return constraint
    return None


def _fits(binding: Binding, hop: Hop) -> bool:
    """Whether a host key is one of the hop's, or a host certificate is by one of its CAs [match_key_hop]."""
    certificate = binding.certificate
    if certificate is None:
        return binding.host_key in hop.host_keys
    return certificate.ca_key in hop.ca_keys and certificate.certifies(hop.hostname)
