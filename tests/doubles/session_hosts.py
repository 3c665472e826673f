"""Hosts with host keys and certificates, and the sessions that bind to them."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from doubles.stand_ins import Key

from replug.protocol.certificates import Certificate, CertificateType
from replug.protocol.constraints import DestinationConstraint, Hop, HopKey
from replug.protocol.extensions import SessionBind
from replug.protocol.keys import SkPublicKey
from replug.protocol.sessions import Binding, Sessions
from replug.protocol.signatures import Signature
from replug.protocol.wire import Writer

HERE = Hop("", "", ())


def signature(key: Key, data: bytes, *, rsa_name: str = "rsa-sha2-512") -> bytes:
    """The signature blob a host would send."""
    match key.public.algorithm:
        case "ssh-rsa":
            hashed: hashes.HashAlgorithm = {
                "ssh-rsa": hashes.SHA1(),
                "rsa-sha2-256": hashes.SHA256(),
                "rsa-sha2-512": hashes.SHA512(),
            }[rsa_name]
            return Signature(rsa_name, key.private.sign(data, padding.PKCS1v15(), hashed)).encode()
        case "ssh-ed25519":
            return Signature("ssh-ed25519", key.private.sign(data)).encode()
        case name:
            hashed = {"256": hashes.SHA256(), "384": hashes.SHA384(), "521": hashes.SHA512()}[name[-3:]]
            r, s = utils.decode_dss_signature(key.private.sign(data, ec.ECDSA(hashed)))
            return Signature(name, bytes(Writer().mpint(r).mpint(s))).encode()


def bind_of(
    key: Key, session: bytes, *, forwarding: bool = False, blob: bytes | None = None, **how: Any
) -> SessionBind:
    """What ssh sends when `key` has proved itself in `session`; `blob` is its certificate, if it has one."""
    return SessionBind(blob or key.blob, session, signature(key, session, **how), forwarding)


def sk_signature(key: Key, data: bytes, application: str = "ssh:") -> tuple[bytes, bytes]:
    """The blobs of a key in a FIDO authenticator and of its signature (PROTOCOL.u2f)."""
    public = SkPublicKey(key.public, application)  # type: ignore[arg-type]
    middle = b"\1" + (7).to_bytes(4, "big")
    signed = hashlib.sha256(application.encode()).digest() + middle + hashlib.sha256(data).digest()
    value = Signature.decode(signature(key, signed)).value
    return public.encode(), bytes(Writer().text(public.algorithm).string(value).raw(middle))


def sk_bind(key: Key, session: bytes, application: str = "ssh:") -> SessionBind:
    """The bind of a host with such a key."""
    public, blob = sk_signature(key, session, application)
    return SessionBind(public, session, blob, False)


def sk_certificate(key: Key, ca: Key, *names: str) -> bytes:
    """A host certificate by a CA with such a key."""
    public, _ = sk_signature(ca, b"")
    unsigned = replace(Certificate.decode(certificate(key, Key(), *names)), ca_key=public)
    _, blob = sk_signature(ca, unsigned.body())
    return replace(unsigned, signature=blob).encode()


def certificate(key: Key, ca: Key, *names: str, **changes: Any) -> bytes:
    """A host certificate for `key`, good from an hour ago to an hour from now."""
    now = int(time.time())
    unsigned = Certificate(
        nonce=b"nonce",
        key=key.public,
        serial=1,
        type=CertificateType.HOST,
        key_id=b"host",
        principals=tuple(name.encode() for name in names),
        valid_after=now - 3600,
        valid_before=now + 3600,
        critical_options=(),
        extensions=(),
        reserved=b"",
        ca_key=ca.blob,
        signature=b"",
    )
    how = {"rsa_name": changes.pop("rsa_name")} if "rsa_name" in changes else {}
    unsigned = replace(unsigned, **changes)
    return replace(unsigned, signature=signature(ca, unsigned.body(), **how)).encode()


def hop(name: str, *keys: Key | bytes, user: str = "", ca: Key | None = None) -> Hop:
    """A hop known by these keys, or certified by `ca`."""
    blobs = [HopKey(key if isinstance(key, bytes) else key.blob, False) for key in keys]
    return Hop(user, name, (*blobs, *([HopKey(ca.blob, True)] if ca else [])))


def leave(from_: Hop, to: Hop) -> DestinationConstraint:
    return DestinationConstraint(from_, to)


def sessions(*hops: tuple[Key | bytes, bool]) -> Sessions:
    """A connection that was bound to these host keys; True where it is forwarded through the host."""
    bindings = (
        Binding(key if isinstance(key, bytes) else key.blob, b"session %d" % number, forwarding)
        for number, (key, forwarding) in enumerate(hops)
    )
    return Sessions(tuple(bindings), bind_attempted=True)
