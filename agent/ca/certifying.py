"""What a key that a `[[ca]]` names may be used for: certificates within its rules, which are recorded."""

from __future__ import annotations

import logging
import time

from replug.agent.ca.certificate_rules import ca_keys
from replug.agent.ca.journal import Journal, issued
from replug.agent.ca.rules import needs_user_name, why_not
from replug.agent.ca.user_names import user_name
from replug.agent.clients.client import Client
from replug.agent.config.ca_entry import CaEntry
from replug.agent.config.confirm_when import ConfirmWhen
from replug.agent.config.model import Config
from replug.agent.config.settings import Settings
from replug.agent.keys.identity import Identity
from replug.agent.keys.refusal import RequestRefusedError
from replug.protocol.constants import SignFlag
from replug.protocol.keys import blob_algorithm, fingerprint, plain_algorithm
from replug.protocol.messages import SignRequest
from replug.protocol.purpose import CertificateToSign, Purpose
from replug.protocol.purpose_text import host_in_words

log = logging.getLogger(__name__)

_RULES = "the rules are in the [[ca]] of config.toml, see replug.toml(5)"


class Certifying:
    """Applies the `[[ca]]` rules as they are now to requests by clients."""

    def __init__(self, settings: Settings, journal: Journal) -> None:
        self._settings = settings
        self._journal = journal
        self._known_of: Config | None = None
        """The configuration that `_keys` are of."""
        self._keys: frozenset[str] = frozenset()

    def names(self, held: Identity) -> bool:
        """Whether this is a CA key, which is nothing to log in with."""
        keys = self._ca_keys()
        return held.fingerprint in keys if keys else False

    def names_blob(self, blob: bytes) -> bool:
        """The same of a key that this agent need not hold."""
        keys = self._ca_keys()
        return fingerprint(blob) in keys if keys else False

    def _ca_keys(self) -> frozenset[str]:
        """The fingerprints of all CA keys."""
        config = self._settings.config
        if config is not self._known_of:
            self._known_of = config
            self._keys = ca_keys(config.certificate_rules) | {entry.key for entry in config.cas}
        return self._keys

    def shows(self, held: Identity, client: Client) -> bool:
        """Whether `held` exists for this client."""
        return not (client.remote and self.names(held)) and client.sees(held.constraints)

    def confirm_when(self, key_blob: bytes) -> ConfirmWhen:
        """When the user is asked before the key signs, by its `[[ca]]`."""
        entry = self._entry(key_blob)
        return ConfirmWhen.ALWAYS if entry is not None and entry.confirm else ConfirmWhen.NEVER

    async def check(self, client: Client, request: SignRequest, purpose: Purpose) -> None:
        """Raise RequestRefusedError if the request is for a CA key and not within its rules."""
        keys = self._ca_keys()
        key = fingerprint(request.key_blob) if keys else ""
        if key not in keys:
            return
        entry = self._settings.config.ca(key)
        if client.remote:
            raise RequestRefusedError(
                "a CA key signs nothing over a connection that is bound to a session or forwarded",
                "log in with another key; certificates are signed for programs on this machine only",
            )
        if not isinstance(purpose.signed, CertificateToSign):
            raise RequestRefusedError(
                f"key {key} is a CA key: it signs certificates and nothing else",
                f"use another key; {_RULES}" if entry is not None else "use another key",
            )
        weak = plain_algorithm(blob_algorithm(request.key_blob)) == "ssh-rsa" and not request.flags & (
            SignFlag.RSA_SHA2_256 | SignFlag.RSA_SHA2_512
        )
        if weak:
            # Who chooses what is signed could make two bodies with the same SHA-1.
            raise RequestRefusedError("an RSA CA key does not sign with SHA-1", "ask for rsa-sha2-512")
        if entry is None:
            return
        user = await user_name(client.peer.uid) if needs_user_name(entry) else ""
        reason = why_not(entry, purpose.signed, user)
        if reason:
            raise RequestRefusedError(reason, _RULES)

    async def record(self, client: Client, purpose: Purpose, signer: Identity, began: float) -> None:
        """Write the certificate into the journal if a CA key signed it; RequestRefusedError if that fails.

        So is one that the agent itself has asked for. `began`: when it was, on the monotonic clock.
        """
        signed = purpose.signed
        if not isinstance(signed, CertificateToSign):
            return
        if signed.login_at is None and not self.names(signer):
            return
        destination = host_in_words(signed.login_at) if signed.login_at is not None else ""
        uid = client.peer.uid
        try:
            user = await user_name(uid)
        except RequestRefusedError:
            user = str(uid)
        line = issued(
            signed.certificate,
            signer.place,
            user=user,
            uid=uid,
            program=client.peer.program,
            destination=destination,
        )
        await self._journal.append(line)
        log.info(
            "certificate issued",
            extra={
                "key": line.key,
                "ca": line.ca,
                "token": line.ca_place,
                "serial": line.serial,
                "valid_for": signed.seconds_left,
                "program": line.program,
                "uid": uid,
                **({"destination": destination} if destination else {}),
                "duration_ms": round((time.monotonic() - began) * 1000),
                "key_id": line.key_id,
                "principals": ",".join(line.principals),
            },
        )

    def _entry(self, key_blob: bytes) -> CaEntry | None:
        config = self._settings.config
        return config.ca(fingerprint(key_blob)) if config.cas else None
