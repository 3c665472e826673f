"""A CA key with a rule, and what it may sign: whatever is sent, it signs nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from doubles.certificate_bodies import body, host_certificate, option, user_certificate
from doubles.session_hosts import bind_of, sessions
from doubles.stand_ins import Key

from replug.agent.ca.certifying import Certifying
from replug.agent.ca.journal import Journal
from replug.agent.clients.client import Client
from replug.agent.clients.peer import Peer
from replug.agent.config.ca_entry import CRITICAL_OPTIONS, SSH_KEYGEN_EXTENSIONS, CaEntry
from replug.agent.config.model import Config
from replug.agent.config.options import Options
from replug.agent.config.settings import Settings
from replug.agent.keys.refusal import RequestRefusedError
from replug.protocol.certificates import Certificate, CertificateType
from replug.protocol.extensions import SESSION_BIND
from replug.protocol.keys import fingerprint
from replug.protocol.messages import Extension, SignRequest
from replug.protocol.purpose import purpose_of
from replug.protocol.sessions import Sessions
from replug.protocol.signed_data import SshSignature
from replug.protocol.userauth import UserauthRequest

CA, SERVER = Key("ca"), Key()
NOW = int(time.time())
_YEARS = 10 * 365 * 86400
"""However long it is fuzzed."""
RULE = CaEntry(fingerprint(CA.blob), _YEARS, ("root",))
OPTIONS = Options(config=Config(cas=(RULE,)))

_FINE: dict[str, Any] = {"valid_before": NOW + _YEARS}
BODIES = [
    body(CA, "root", **_FINE),
    body(CA, "root", "root", **_FINE),
    body(CA, "root", critical_options=(option("source-address", "::1"), ("verify-required", b"")), **_FINE),
    body(CA, "alice", **_FINE),
    body(CA, "root", valid_before=NOW + 2 * _YEARS),
    host_certificate(CA, "root", **_FINE).body(),
    user_certificate(CA, "root", **_FINE).encode(),
    UserauthRequest(b"session 0", "root", "ssh-ed25519", CA.blob, SERVER.blob).encode(),
    SshSignature(b"git", "sha512", bytes(64)).encode(),
]
REQUESTS = [
    *(SignRequest(CA.blob, data, 0).encode() for data in BODIES),
    Extension(SESSION_BIND, bind_of(SERVER, b"session 0").encode()).encode(),
    Extension(SESSION_BIND, bind_of(SERVER, b"session 1", forwarding=True).encode()).encode(),
]
"""To an agent that has the key."""


def only_what_is_allowed(data: bytes) -> None:
    """The rule once more, in other words."""
    certificate = Certificate.decode_body(data)
    assert certificate.body() == data
    assert certificate.ca_key == CA.blob
    assert certificate.type is CertificateType.USER
    assert set(certificate.principals) == {b"root"}
    assert NOW < certificate.valid_before <= time.time() + _YEARS + 301
    assert {name for name, _ in certificate.critical_options} <= set(CRITICAL_OPTIONS)
    assert {name for name, _ in certificate.extensions} <= set(SSH_KEYGEN_EXTENSIONS)
    assert any(certificate.nonce)


def _clients() -> list[Client]:
    """One that is local, and three that are not."""
    several = [
        Sessions(),
        Sessions((), bind_attempted=True, bind_failed=True),
        sessions((SERVER, False)),
        sessions((SERVER, True)),
    ]
    return [Client(Peer(os.getpid(), os.getuid()), one) for one in several]


_CERTIFYING = Certifying(Settings(OPTIONS), Journal(lambda: Path("/nonexistent")))
_LOCAL, *_BOUND = _clients()


def check(data: bytes) -> None:
    """Have it signed by all kinds of clients: only the local one may succeed, and with what is allowed."""
    purpose = purpose_of(data, CA.blob, Sessions(), (), NOW)
    request = SignRequest(CA.blob, data, 0)
    for client in _BOUND:
        assert not _is_allowed(_CERTIFYING.check(client, request, purpose))
    if _is_allowed(_CERTIFYING.check(_LOCAL, request, purpose)):
        only_what_is_allowed(data)


def _is_allowed(checking: Coroutine[Any, Any, None]) -> bool:
    """What it says; it waits for nothing, as the rule names no user."""
    try:
        checking.send(None)
    except StopIteration:
        return True
    except RequestRefusedError:
        return False
    raise AssertionError("it waits")


class CaKey:
    """Where the private key would be: keeps what it was used for."""

    def __init__(self) -> None:
        self.signed: list[bytes] = []

    async def sign(self, blob: bytes, data: bytes, _flags: int) -> bytes:
        assert blob == CA.blob
        self.signed.append(data)
        return b"signature"
