"""A session-bind by which other agents see a connection as forwarded, by a host that they do not know.

So keys that are restricted to destinations are neither shown nor used on it, whatever binds follow.
"""

from __future__ import annotations

import os
from functools import cache

from replug.protocol.extensions import SESSION_BIND, SessionBind
from replug.protocol.keys import Ed25519PublicKey
from replug.protocol.messages import Extension
from replug.protocol.wire import Writer


@cache
def bind_of_unknown_host() -> bytes:
    """The message, by a host key that only this process ever had."""
    from cryptography.hazmat.primitives.asymmetric import ed25519  # slow

    key, session = ed25519.Ed25519PrivateKey.generate(), os.urandom(32)
    public = Ed25519PublicKey(key.public_key().public_bytes_raw())
    signature = Writer().text("ssh-ed25519").string(key.sign(session))
    bind = SessionBind(public.encode(), session, bytes(signature), is_forwarding=True)
    return Extension(SESSION_BIND, bind.encode()).encode()
