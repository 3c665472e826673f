"""Which certificates a CA key signs: the rules of its `[[ca]]`, applied to what a signature is asked for."""

from __future__ import annotations

from collections.abc import Iterator

from replug.agent.config.ca_entry import ANY_NAME, CRITICAL_OPTIONS, SSH_KEYGEN_EXTENSIONS, USER, CaEntry
from replug.protocol.certificates import Certificate
from replug.protocol.purpose import FOREVER, CertificateToSign
from replug.protocol.visible_text import visible
from replug.protocol.wire import ProtocolError, Reader

CLOCK_SKEW = 300
"""Seconds that a certificate may be valid for longer than the rule says: clocks differ, and users think."""
SHORTEST_NONCE = 16
"""Bytes; PROTOCOL.certkeys has 16 or 32 random ones, against collisions of the signature's hash."""


def needs_user_name(entry: CaEntry) -> bool:
    """Whether the rule cannot be applied without the name of the user who asks."""
    return any(USER in principal for principal in entry.principals)


def why_not(entry: CaEntry, asked: CertificateToSign, user: str) -> str:
    """Why `entry` forbids this certificate, which `user` asks for; empty if it allows it.

    The certificate is taken to be for the entry's CA key. `user` may be empty if `needs_user_name` is false.
    """
    return next(_objections(entry, asked, user), "")


def _objections(entry: CaEntry, asked: CertificateToSign, user: str) -> Iterator[str]:
    certificate = asked.certificate
    kind = "host" if asked.is_for_host else "user"
    if kind not in entry.types:
        yield f"a {kind} certificate is not allowed"
    yield from _validity(entry, asked)
    yield from _principals(entry, certificate, kind, user)
    if asked.is_for_host:
        if certificate.critical_options or certificate.extensions:
            yield "a host certificate has no options or extensions, and this one has"
    else:
        yield from _critical_options(entry, certificate)
        yield from _extensions(entry, certificate)
    if len(certificate.nonce) < SHORTEST_NONCE or not any(certificate.nonce):
        yield f"the nonce is not {SHORTEST_NONCE} or more random bytes"
    if certificate.reserved:
        yield "the reserved field is not empty"


def _validity(entry: CaEntry, asked: CertificateToSign) -> Iterator[str]:
    start, end = asked.certificate.valid_after, asked.certificate.valid_before
    left = asked.seconds_left
    if end == FOREVER or left is None:
        yield "a certificate without an end is not allowed"
    elif left > entry.max_validity + CLOCK_SKEW:
        yield f"valid until {left} s from now, more than {entry.max_validity} s"
    elif not left or start >= end:
        yield "the certificate is never valid: it ends before it begins, or has ended"


def _principals(entry: CaEntry, certificate: Certificate, kind: str, user: str) -> Iterator[str]:
    if not certificate.principals:
        yield f"a certificate without principals is good for every {kind}"
    allowed = {principal.replace(USER, user).encode() for principal in entry.principals}
    for principal in certificate.principals:
        if not principal:
            yield "a principal is an empty name"
        elif principal not in allowed and ANY_NAME not in entry.principals:
            yield f"principal {_quoted(principal)} is not allowed" + (f" for user {user}" if user else "")


def _critical_options(entry: CaEntry, certificate: Certificate) -> Iterator[str]:
    options = dict(certificate.critical_options)
    yield from _repeated("critical option", [name for name, _ in certificate.critical_options])
    for name, data in options.items():
        if name not in CRITICAL_OPTIONS:
            yield f"critical option {_quoted(name)} is unknown"
        elif not _is_value(name, data):
            yield f"critical option '{name}' is malformed"
    for name in entry.required_options:
        if name not in options:
            yield f"critical option '{name}' is missing, and required"


def _extensions(entry: CaEntry, certificate: Certificate) -> Iterator[str]:
    yield from _repeated("extension", [name for name, _ in certificate.extensions])
    for name, data in certificate.extensions:
        if name not in entry.extensions:
            yield f"extension {_quoted(name)} is not allowed"
        elif data and name in SSH_KEYGEN_EXTENSIONS:
            yield f"extension '{name}' is malformed"


def _repeated(what: str, names: list[str]) -> Iterator[str]:
    for name in {name: None for name in names if names.count(name) > 1}:
        yield f"{what} {_quoted(name)} is there twice"


def _is_value(name: str, data: bytes) -> bool:
    """Whether `data` has the form of the option: a string that is not empty, or nothing."""
    if name == "verify-required":
        return not data
    reader = Reader(data)
    try:
        value = reader.cstring()
        reader.check_end()
    except ProtocolError:
        return False
    return bool(value)


def _quoted(name: str | bytes) -> str:
    shown = visible(name)
    return shown if shown.startswith('"') else f"'{shown}'"
