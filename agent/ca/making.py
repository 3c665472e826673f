"""Making a certificate: which key it is for, and which CA key signs it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from replug.agent.ca.rule_state import RuleState
from replug.agent.ca.unsigned import Serials, purpose_of_certifying, unsigned_certificate
from replug.agent.ca.user_names import user_name
from replug.agent.clients.client import Client
from replug.agent.config.certificate_rule import EPHEMERAL, CertificateRule
from replug.agent.config.key_choice import chosen_keys
from replug.agent.keys.constraints import KeyConstraints
from replug.agent.keys.identities import Identities
from replug.agent.keys.identity import Identity, SoftwareIdentity
from replug.agent.keys.issued import IssuedIdentity
from replug.agent.keys.refusal import RequestRefusedError
from replug.agent.keys.software import SoftwareKeys
from replug.protocol.certificates import Certificate
from replug.protocol.purpose import Host, Purpose
from replug.token.errors import (
    DeclinedError,
    ExplainedError,
    ModuleUnreachableError,
    PinLockedError,
    PromptError,
    TokenAbsentError,
)
from replug.token.prompts.request import Asker
from replug.token.requester import Guest


class Signed(Protocol):
    """A signature by a CA key, and the identity that made it."""

    @property
    def signature(self) -> bytes:
        """Its blob."""

    @property
    def identity(self) -> Identity:
        """The CA key."""


class Certifier(Protocol):
    """What has CA keys sign, by the rules for all signatures."""

    async def certify(
        self, client: Client, ca_key: bytes, certificate: Certificate, host: Host | None
    ) -> Signed:
        """Have the CA key sign a certificate for a login at `host`; TokenError, RequestRefusedError."""

    async def wait_for_any(self, candidates: list[Identity], asker: Asker, purpose: Purpose) -> bool:
        """Whether the token of one of the candidates is back as soon as the configuration wants."""


class Making:
    """Makes certificates for logins, by the rules of the configuration."""

    def __init__(self, identities: Identities, software_keys: SoftwareKeys, certifier: Certifier) -> None:
        self._identities = identities
        self._software_keys = software_keys
        self._certifier = certifier
        self._serials = Serials()
        self._names: dict[str, str] = {}

    async def make(self, state: RuleState, client: Client, host: Host | None) -> IssuedIdentity:
        """A certificate by the state's rule, for a login at `host` if it is for one.

        ExplainedError, ProtocolError.
        """
        names = await self._values(state.guest)
        held = await self._key_to_certify(state, client)
        certificate, authority = await self._signed(state, client, host, held, names)
        return IssuedIdentity(
            blob=certificate.encode(),
            comment=f"{certificate.key_id.decode()} serial {certificate.serial}".encode(),
            constraints=replace(held.constraints, here_only=True),
            certified=held,
            certificate=certificate,
            authority=authority.place,
        )

    async def _signed(
        self, state: RuleState, client: Client, host: Host | None, held: Identity, names: dict[str, str]
    ) -> tuple[Certificate, Identity]:
        """The certificate, and the CA key that has signed it."""
        authorities = list(self._authorities(state.rule))
        if not authorities:
            raise RequestRefusedError(
                f"no token that the agent serves has the CA key {' or '.join(state.rule.ca)}",
                "plug it in; see replug status",
            )
        try:
            return await self._signed_by(authorities, state, client, host, held, names)
        except TokenAbsentError:
            # Who has a certificate that is still good does not wait.
            unsigned = unsigned_certificate(state.rule, held.blob, authorities[0].blob, 0, names)
            purpose = purpose_of_certifying(unsigned, host)
            if state.shown(time.time()) is not None or not await self._certifier.wait_for_any(
                authorities, client.asker(purpose), purpose
            ):
                raise
        return await self._signed_by(authorities, state, client, host, held, names)

    async def _signed_by(
        self,
        authorities: list[Identity],
        state: RuleState,
        client: Client,
        host: Host | None,
        held: Identity,
        names: dict[str, str],
    ) -> tuple[Certificate, Identity]:
        """As `_signed`; the first CA key of which the token is in signs, if it can."""
        unable: ExplainedError | None = None
        for authority in sorted(authorities, key=lambda one: one.distance[0]):
            serial = self._serials.next(time.time())
            certificate = unsigned_certificate(state.rule, held.blob, authority.blob, serial, names)
            try:
                signed = await self._certifier.certify(client, authority.blob, certificate, host)
            except (TokenAbsentError, ModuleUnreachableError, PinLockedError) as error:
                unable = unable or error
            except PromptError as error:
                if isinstance(error, DeclinedError):
                    raise
                unable = unable or error
            else:
                return replace(certificate, signature=signed.signature), signed.identity
        assert unable is not None
        raise unable

    def _authorities(self, rule: CertificateRule) -> Iterator[Identity]:
        """The CA keys that the agent has, in the rule's order, each once: the nearest to signing."""
        for key in rule.ca:
            yield from self._identities.of_key(key)[:1]

    async def _key_to_certify(self, state: RuleState, client: Client) -> Identity:
        if EPHEMERAL in state.rule.key:
            if state.key is None:
                blob = await self._software_keys.make()
                comment = f"for certificates by {state.rule.ca[0]}".encode()
                guests = state.rule if state.guest is not None else None
                constraints = KeyConstraints(here_only=True, guest=state.guest, rule=guests)
                state.key = SoftwareIdentity(blob, comment, constraints, self._software_keys)
            return state.key
        on_tokens = self._identities.on_tokens(lambda held: client.sees(held.constraints))
        there = {held.key.blob: held for held in on_tokens if held.token.present}
        chosen = chosen_keys((held.key for held in there.values()), state.rule.key)
        if not chosen:
            raise RequestRefusedError(
                f"no key of a token that is in is among {', '.join(state.rule.key)}",
                "plug it in, or see key in config.toml",
            )
        return there[chosen[0].blob]

    async def _values(self, guest: Guest | None) -> dict[str, str]:
        """The values of the rules' templates."""
        if not self._names:
            self._names = {"user": await user_name(os.getuid()), "machine": socket.gethostname()}
        return self._names if guest is None else self._names | {"user": guest.name}
