"""Whether the signature that another agent gives is one by the key: the log says so of each."""

from __future__ import annotations

from replug.protocol.keys import SkPublicKey, parse_any_public_key, plain_blob
from replug.protocol.signatures import verify_any
from replug.protocol.wire import ProtocolError

_WEBAUTHN = b"webauthn-"


def check_signature(key_blob: bytes, signature: bytes, data: bytes) -> None:
    """Raise InvalidSignatureError unless the key, or that of a certificate, has made the signature.

    Of a type that is not known here, and in the form that browsers have FIDO keys sign, anything may be one.
    """
    try:
        key = parse_any_public_key(plain_blob(key_blob))
        if not isinstance(key, SkPublicKey):
            key.validate()
    except ProtocolError:
        return
    if isinstance(key, SkPublicKey) and signature[4:].startswith(_WEBAUTHN):
        return
    verify_any(key, signature, data)
