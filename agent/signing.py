"""From a sign request to a signature: which identities may sign, whether the user agrees, which one can.

The order is OpenSSH's (process_sign_request2): the key, the destination, the user, the signature.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from operator import or_

from replug.agent.ca.certifying import Certifying
from replug.agent.ca.guests import MOST_SIGNATURES, Allowance
from replug.agent.ca.unsigned import purpose_of_certifying
from replug.agent.clients.client import Client
from replug.agent.config.confirm_when import ConfirmWhen
from replug.agent.config.settings import Settings
from replug.agent.confirmations import Confirmations, Confirmed
from replug.agent.desktop.touch_notice import TouchNotices
from replug.agent.key_rules.destinations import Destinations
from replug.agent.key_rules.restriction import check_restrictions
from replug.agent.keys.identities import Identities
from replug.agent.keys.identity import Identity, TokenBackedIdentity, confirm_when
from replug.agent.keys.refusal import RequestRefusedError, SignRefusedError
from replug.agent.keys.websafe import refuse_unsafe
from replug.agent.upstreams.upstreams import Upstreams
from replug.agent.views.rules import check_purpose, may_use, not_there
from replug.agent.views.rules import confirm_when as confirm_by_view
from replug.protocol.certificates import Certificate
from replug.protocol.constants import SignFlag
from replug.protocol.keys import fingerprint
from replug.protocol.messages import SignRequest
from replug.protocol.purpose import Host, Purpose, purpose_of
from replug.protocol.purpose_text import in_one_line
from replug.protocol.sessions import DestinationError, check_sign
from replug.protocol.wire import ProtocolError
from replug.token.boottime import boottime
from replug.token.errors import ExplainedError, ModuleUnreachableError, PinLockedError, TokenAbsentError
from replug.token.identity import TokenId
from replug.token.offload import Aside
from replug.token.prompts.request import Asker, ConfirmRequest

log = logging.getLogger(__name__)

_QUICK_DESTINATIONS = 8
"""To compare a login with more destination constraints takes too long for the event loop."""


@dataclass(frozen=True)
class Signed:
    """A signature: its blob, the identity that made it, for whom and what, and whether the user was asked."""

    signature: bytes
    identity: Identity
    asker: Asker
    purpose: Purpose
    confirmed: Confirmed


class Signing:
    """Signs with what `identities` hold, as `settings` say, after the `confirmations` they require."""

    def __init__(
        self,
        identities: Identities,
        upstreams: Upstreams,
        settings: Settings,
        confirmations: Confirmations,
        certifying: Certifying,
        notices: TouchNotices,
        destinations: Destinations,
        aside: Aside,
    ) -> None:
        self._aside = aside
        self._identities = identities
        self._upstreams = upstreams
        self._settings = settings
        self._notices = notices
        self._destinations = destinations
        self._confirmations = confirmations
        self._certifying = certifying
        self._allowance = Allowance(boottime, MOST_SIGNATURES, "signatures")

    async def sign(self, client: Client, request: SignRequest) -> Signed:
        """Sign what is asked for; SignRefusedError.

        A key may be on several tokens: any that is in will do, with its own PIN. If all are out, the
        configuration says how long to wait for one.
        """
        purpose = purpose_of(request.data, request.key_blob, client.sessions, client.hosts, int(time.time()))
        if client.view is not None:
            purpose = replace(purpose, view=client.view.path)
        attempt = _Attempt(client, request, purpose)
        try:
            if client.guest is not None:
                self._allowance.take(client.guest)
            try:
                return await self._sign(attempt)
            except TokenAbsentError as absent:
                asker = client.asker(attempt.purpose)
                if not await self.wait_for_any(attempt.candidates, asker, attempt.purpose):
                    raise
                fields = {"why": str(absent), "program": attempt.client.peer.program}
                log.info("the token came back in time", extra=fields)
                return await self._sign(attempt)
        except ExplainedError as error:
            raise SignRefusedError(attempt.purpose, error.reason, error.next_step) from error
        except ProtocolError as error:
            raise SignRefusedError(attempt.purpose, str(error)) from error

    async def certify(
        self, client: Client, ca_key: bytes, certificate: Certificate, host: Host | None
    ) -> Signed:
        """Have a CA key sign a certificate that the configuration wants for a login at `host`.

        Raises TokenError, RequestRefusedError.
        """
        purpose = purpose_of_certifying(certificate, host)
        request = SignRequest(ca_key, certificate.body(), SignFlag.RSA_SHA2_512)
        # It is the agent that asks, for this client: what that one is bound to does not restrict the CA key.
        return await self._sign(_Attempt(Client(client.peer), request, purpose, by_agent=True))

    async def _sign(self, attempt: _Attempt) -> Signed:
        """Sign with the first identity that can, if it is still there then."""
        attempt.candidates = await self._allowed(attempt)
        request, asker = attempt.request, attempt.client.asker(attempt.purpose)
        unable: ExplainedError | None = None
        for held in attempt.candidates:
            try:
                signature = await held.sign(request.data, request.flags, asker, self._notices)
            except (TokenAbsentError, ModuleUnreachableError, PinLockedError) as error:
                unable = error
                continue
            # While the user typed the PIN or touched the token, it may have been removed, or added again with
            # other constraints.
            now = [one for one in self._holding(attempt) if one.holder == held.holder]
            if not now or not attempt.may_use(now[0]):
                raise not_there(attempt.client, held.blob)
            changed = now[0].constraints != held.constraints
            if changed and self._still_required(attempt, attempt.permitted(now)):
                raise RequestRefusedError("the key was added again meanwhile, to be confirmed", "try again")
            # The rules may have been read again meanwhile.
            check_purpose(attempt.client, attempt.purpose)
            self._check_restrictions(attempt, now)
            await self._certifying.check(attempt.client, request, attempt.purpose)
            await self._certifying.record(attempt.client, attempt.purpose, held, attempt.began)
            self._destinations.used(attempt.client, attempt.purpose, held.blob)
            return Signed(signature, held, asker, attempt.purpose, attempt.confirmed)
        assert unable is not None
        raise unable

    async def wait_for_any(self, candidates: list[Identity], asker: Asker, purpose: Purpose) -> bool:
        """Whether one of the tokens is back as soon as the configuration wants; the user is told which."""
        patience = self._settings.config.wait_for_token
        if not patience:
            return False
        places = list(dict.fromkeys(held.place for held in candidates))
        key = candidates[0].comment.decode(errors="replace")
        log.info(
            "waiting for a token to be plugged in",
            extra={
                "token": " or ".join(places),
                "program": asker.program,
                "purpose": in_one_line(purpose),
            },
        )
        with self._notices.plug_in(places, key, asker):
            return await _any_back(candidates, patience)

    async def _allowed(self, attempt: _Attempt) -> list[Identity]:
        """The identities that may sign, once the user has agreed if that is required; raises why none may."""
        while True:
            check_purpose(attempt.client, attempt.purpose)
            await self._certifying.check(attempt.client, attempt.request, attempt.purpose)
            held = self._holding(attempt)
            if not held and not attempt.by_agent:
                attempt.elsewhere = held = await self._upstreams.holding(
                    attempt.client, attempt.request.key_blob
                )
            many = sum(len(one.constraints.destinations) for one in held) > _QUICK_DESTINATIONS
            permitted = partial(attempt.permitted, held)
            candidates = await self._aside.run(permitted) if many else permitted()
            self._check_restrictions(attempt, candidates)
            refuse_unsafe(candidates, attempt.purpose, self._settings.options)
            required = self._still_required(attempt, candidates)
            if not required:
                return candidates
            attempt.confirmed = await self._confirm(candidates[0], attempt, required)
            # While the user was asked, keys may have been removed, or added, or may have expired.

    def _holding(self, attempt: _Attempt) -> Sequence[Identity]:
        """The identities of the key: ours, or else what another agent was found to have."""
        return self._identities.holding(attempt.request.key_blob) or attempt.elsewhere

    def _check_restrictions(self, attempt: _Attempt, candidates: list[Identity]) -> None:
        if not attempt.by_agent:
            rules = self._settings.config.key_rules
            check_restrictions(rules, candidates, attempt.purpose, attempt.client)

    def _still_required(self, attempt: _Attempt, candidates: list[Identity]) -> ConfirmWhen:
        """The confirmation that the candidates require now and the user has not given.

        If one of them requires it, none is used before the user agrees: which one is nearest changes.
        """
        when = reduce(or_, (confirm_when(held, self._settings.options.config) for held in candidates))
        when |= self._certifying.confirm_when(attempt.request.key_blob) | confirm_by_view(attempt.client)
        if attempt.confirmed is Confirmed.BY_REMEMBERED_YES and ConfirmWhen.AGAIN in when:
            return when
        given = attempt.confirmed or not when or not when.asks(attempt.purpose)
        return ConfirmWhen.NEVER if given else when

    async def _confirm(self, held: Identity, attempt: _Attempt, when: ConfirmWhen) -> Confirmed:
        key = fingerprint(held.blob, self._settings.options.fingerprint_hash)
        question = ConfirmRequest(
            held.comment.decode(errors="replace"), key, attempt.client.asker(attempt.purpose)
        )
        return await self._confirmations.confirm(
            held.blob, attempt.purpose, question, each_time=ConfirmWhen.AGAIN in when
        )


@dataclass
class _Attempt:
    """A request, the client it came from, and what the signature is for."""

    client: Client
    request: SignRequest
    purpose: Purpose
    confirmed: Confirmed = Confirmed.NOT_REQUIRED
    began: float = field(default_factory=time.monotonic)
    candidates: list[Identity] = field(default_factory=list)
    """What may sign, as of the last look."""
    elsewhere: Sequence[Identity] = ()
    """The same key in another agent, if this one does not hold it."""
    by_agent: bool = False
    """Whether the agent itself asks for it, with keys that the client may not use."""

    def may_use(self, held: Identity) -> bool:
        """Whether it exists for who asks, whatever its destinations."""
        return self.by_agent or may_use(self.client, held)

    def permitted(self, holding: Sequence[Identity]) -> list[Identity]:
        """The identities among `holding` that may sign this, one for each holder; raises why none may."""
        permitted: dict[TokenId | None, Identity] = {}
        refusal: Exception | None = None
        for held in holding:
            if not self.may_use(held):
                continue
            try:
                if held.constraints.destinations:
                    self._check_destination(held)
                permitted[held.holder] = held
            except DestinationError as error:
                refusal = error
        if not permitted:
            raise refusal or not_there(self.client, self.request.key_blob)
        return list(permitted.values())

    def _check_destination(self, held: Identity) -> None:
        to = check_sign(held.constraints.destinations, self.client.sessions, held.blob, self.request.data)
        self.purpose = self.purpose.named(to.host_name)


async def _any_back(candidates: list[Identity], patience: float) -> bool:
    """Whether one of the tokens is back within `patience` seconds."""
    waiting = [
        asyncio.create_task(held.token.wait_until_back())
        for held in candidates
        if isinstance(held, TokenBackedIdentity)
    ]
    try:
        done, _ = await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    return bool(done)
