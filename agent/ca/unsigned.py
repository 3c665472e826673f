"""The certificate that a rule wants, before the CA key has signed it (PROTOCOL.certkeys)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from replug.agent.ca.serial import serial_at
from replug.agent.config.certificate_rule import CertificateRule
from replug.agent.config.comment_template import filled
from replug.protocol.certificates import Certificate, CertificateType, Options
from replug.protocol.keys import parse_public_key
from replug.protocol.purpose import CertificateToSign, Host, Purpose
from replug.protocol.wire import Writer

_BEFORE = 60  # seconds by which a server's clock may be behind
_NONCE_SIZE = 32


class Serials:
    """Serial numbers: date and time (UTC) and three digits. Each is larger than the last."""

    def __init__(self) -> None:
        self._last = 0

    def next(self, now: float) -> int:
        """The number of a certificate that is made `now`, in seconds since 1970."""
        self._last = max(serial_at(now), self._last + 1)
        return self._last


def unsigned_certificate(
    rule: CertificateRule, key_blob: bytes, ca_key: bytes, serial: int, names: Mapping[str, str]
) -> Certificate:
    """A certificate for a key, valid from now on; `names` are the values of the rule's templates."""
    now = int(time.time())
    return Certificate(
        nonce=os.urandom(_NONCE_SIZE),
        key=parse_public_key(key_blob),
        serial=serial,
        type=CertificateType.USER,
        key_id=filled(rule.key_id, names).encode(),
        principals=tuple(filled(principal, names).encode() for principal in rule.principals),
        valid_after=now - _BEFORE,
        valid_before=now + rule.lifetime,
        critical_options=_critical_options(rule),
        extensions=tuple((name, b"") for name in rule.extensions),
        reserved=b"",
        ca_key=ca_key,
        signature=b"",
    )


def _critical_options(rule: CertificateRule) -> Options:
    """In the order of their names, as sshd wants them."""
    options = (("force-command", rule.force_command), ("source-address", rule.source_address))
    return tuple((name, bytes(Writer().string(value.encode()))) for name, value in options if value)


def purpose_of_certifying(certificate: Certificate, host: Host | None) -> Purpose:
    """What a CA key's signature is for that the agent itself asks for: a login at `host`, if one."""
    return Purpose(CertificateToSign(certificate, int(time.time()), host), (), unverified=False)
