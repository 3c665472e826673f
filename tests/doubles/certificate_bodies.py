"""What a CA is asked to sign: bodies of certificates as ssh-keygen makes them, with anything changed."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

from doubles.stand_ins import Key

from replug.agent.config.ca_entry import SSH_KEYGEN_EXTENSIONS
from replug.protocol.certificates import Certificate, CertificateType
from replug.protocol.wire import Writer

SUBJECT = Key()


def user_certificate(ca: Key | bytes, *principals: str, **changes: Any) -> Certificate:
    """A certificate as `ssh-keygen -U -n PRINCIPALS -V +10m` asks for it: with an empty signature."""
    now = int(time.time())
    made = Certificate(
        nonce=os.urandom(32),
        key=SUBJECT.public,
        serial=7,
        type=CertificateType.USER,
        key_id=b"alice@here",
        principals=tuple(name.encode() for name in principals),
        valid_after=now - 60,
        valid_before=now + 600,
        critical_options=(),
        extensions=tuple((name, b"") for name in SSH_KEYGEN_EXTENSIONS),
        reserved=b"",
        ca_key=ca if isinstance(ca, bytes) else ca.blob,
        signature=b"",
    )
    return replace(made, **changes)


def body(ca: Key | bytes, *principals: str, **changes: Any) -> bytes:
    """What is signed of it."""
    return user_certificate(ca, *principals, **changes).body()


def host_certificate(ca: Key, *names: str, **changes: Any) -> Certificate:
    """The same for a host."""
    host: dict[str, Any] = {"type": CertificateType.HOST, "extensions": ()}
    return user_certificate(ca, *names, **host | changes)


def option(name: str, value: str) -> tuple[str, bytes]:
    """A critical option with a value."""
    return name, bytes(Writer().text(value))
