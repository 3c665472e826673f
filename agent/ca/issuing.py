"""Certificates just in time: when ssh lists its keys for a login, a CA key on a token certifies one.

So a user with a `[[certificate]]` for a host logs in there with an empty authorized_keys. Only a connection
that is bound to one host, and is not forwarded, causes a signature by the CA key.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from replug.agent.ca.certificate_file import write_certificate
from replug.agent.ca.certificate_rules import rule_for
from replug.agent.ca.guests import MOST_CERTIFICATES, Allowance
from replug.agent.ca.making import Certifier, Making
from replug.agent.ca.rule_state import Missing, RuleState
from replug.agent.clients.client import Client
from replug.agent.config.certificate_rule import CertificateRule
from replug.agent.config.settings import Settings
from replug.agent.control.refusals import RefusalHistory
from replug.agent.keys.identities import Identities
from replug.agent.keys.issued import IssuedIdentity
from replug.agent.keys.refusal import RequestRefusedError, UseDeclinedError
from replug.agent.keys.software import SoftwareKeys
from replug.protocol.purpose import Host
from replug.protocol.purpose_text import host_in_words
from replug.protocol.wire import ProtocolError
from replug.token.boottime import boottime
from replug.token.errors import DeclinedError, ExplainedError, PromptError
from replug.token.requester import Guest
from replug.token.serving.shared import StoppedError

log = logging.getLogger(__name__)

_LONGEST = 90.0
"""Seconds: sshd hangs up on a client that has not logged in within 120 (LoginGraceTime)."""
_NOT_AGAIN = 30.0  # seconds after a no
REQUEST = "Certificate"
"""What a refusal names in place of a request."""


class Issuing:
    """The certificates of all rules."""

    def __init__(
        self,
        settings: Settings,
        identities: Identities,
        software_keys: SoftwareKeys,
        certifier: Certifier,
        refusals: RefusalHistory,
    ) -> None:
        self._settings = settings
        self._identities = identities
        self._software_keys = software_keys
        self._making = Making(identities, software_keys, certifier)
        self._refusals = refusals
        self._allowance = Allowance(boottime, MOST_CERTIFICATES, "certificates")
        self._states: dict[tuple[CertificateRule, Guest | None], RuleState] = {}
        self._ends = 0
        """How often what was under way was ended, as its outcome was not wanted any more."""

    # What there is.

    def states(self) -> list[RuleState]:
        """Of each rule for the agent's user, in the configuration's order."""
        return [self._state(rule, None) for rule in self._settings.config.own_rules]

    def states_of(self, client: Client) -> list[RuleState]:
        """The same, or what there is for a guest by the rules that name them now."""
        if client.guest is None:
            return self.states()
        wanted = ((rule, client.guest) for rule in client.guest_rules)
        return [self._states[one] for one in wanted if one in self._states]

    def states_of_guests(self) -> list[RuleState]:
        """Of each rule that is for guests: what there is for each, or an empty one."""
        guests = dict.fromkeys(guest for _, guest in self._states if guest is not None)
        return [
            state
            for rule in self._settings.config.guest_rules
            for state in (
                [self._states[rule, guest] for guest in guests if (rule, guest) in self._states]
                or [RuleState(rule, None, self._can_sign)]
            )
        ]

    def state_for(self, client: Client) -> RuleState | None:
        """Of the rule for the host that the client logs in at; None if there is none."""
        rules = self._rules_of(client)
        if not rules:
            return None
        if client.ruled_by is not rules:
            host = client.logs_in_at
            client.ruled_by, client.rule = rules, None if host is None else rule_for(rules, host)
        return None if client.rule is None else self._state(client.rule, client.guest)

    def is_due(self, client: Client) -> bool:
        """Whether the client is to wait for `prepare` before it is listed its keys."""
        state = self.state_for(client)
        if state is None:
            # Guests come for certificates only, so they are told why there is none.
            return client.guest is not None and client.logs_in_at is not None
        return state.is_due(time.time())

    def has_for(self, client: Client) -> bool:
        """Whether the client is listed a certificate for its login now."""
        state = self.state_for(client)
        return state is not None and state.shown(time.time()) is not None

    def _rules_of(self, client: Client) -> Sequence[CertificateRule]:
        return client.guest_rules if client.guest is not None else self._settings.options.config.own_rules

    def _state(self, rule: CertificateRule, guest: Guest | None) -> RuleState:
        state = self._states.get((rule, guest))
        if state is None:
            state = self._states[rule, guest] = RuleState(rule, guest, self._can_sign)
        return state

    def _can_sign(self, issued: IssuedIdentity) -> bool:
        return any(not held.distance[0] for held in self._identities.holding(issued.blob))

    # What ends it.

    def follow_configuration(self) -> None:
        """Drop keys and certificates of rules that the configuration does not have any more."""
        rules = set(self._settings.config.certificate_rules)
        for key in [key for key in self._states if key[0] not in rules]:
            self._drop(self._states.pop(key))
        self._show()

    def clear(self) -> None:
        """Drop all keys and certificates, also those that are being made."""
        self.stop()
        for state in self._states.values():
            self._drop(state)
        self._states.clear()
        self._show()

    def stop(self) -> None:
        """End what is under way."""
        self._ends += 1
        for state in self._states.values():
            state.attempt.stop()

    def remove(self, blob: bytes) -> None:
        """Drop a certificate, and those that it replaced or that replaced it, if it is here."""
        for state in self._states.values():
            if any(issued.blob == blob for issued in state.issued):
                state.drop()
                self._show()

    def _drop(self, state: RuleState) -> None:
        state.attempt.stop()
        if state.key is not None:
            self._software_keys.remove(state.key.blob)
        state.key = None
        state.drop()

    def _show(self) -> None:
        """Let what there is be used and listed."""
        states = self._states.values()
        self._identities.use_issued(held for state in states for held in (*state.issued, *state.plain))

    # What makes it.

    async def prepare(self, client: Client) -> None:
        """Have a certificate made if the client's host wants one; if there is none then, the log says why.

        Takes 90 seconds at most, and as long as a question may stay unanswered.
        """
        state, host = self.state_for(client), client.logs_in_at
        if host is None or not self.is_due(client):
            return
        if state is None:
            self._report(None, client, host, _no_rule(client))
            return
        patience = min(self._settings.config.prompt_timeout, _LONGEST)
        try:
            async with asyncio.timeout(patience):
                await self._made(state, client, host)
        except TimeoutError:
            state.held_back_until = boottime() + _NOT_AGAIN
            self._report(state, client, host, RequestRefusedError(f"none was made within {patience:g} s"))
        except ExplainedError as error:
            if isinstance(error, DeclinedError | UseDeclinedError):
                state.held_back_until = boottime() + _NOT_AGAIN
            self._report(state, client, host, error)
        except ProtocolError as error:
            self._report(state, client, host, RequestRefusedError(str(error)))

    async def _made(self, state: RuleState, client: Client, host: Host) -> None:
        """One attempt for all clients that want a certificate of the rule."""
        ends = self._ends
        while state.is_due(time.time()):
            if ends != self._ends or self._states.get((state.rule, state.guest)) is not state:
                raise RequestRefusedError("the agent was locked or emptied meanwhile")
            if boottime() < state.held_back_until:
                raise RequestRefusedError(
                    "the user declined a moment ago", f"try again {_NOT_AGAIN:g} s after that"
                )
            leads = state.attempt.idle
            try:
                await state.attempt.join(partial(self._make, state, client, host))
            except StoppedError:
                continue
            except PromptError as error:
                # The user may be asked where this client runs, though not where the first one does.
                if leads or isinstance(error, DeclinedError):
                    raise

    async def renew(self, state: RuleState, client: Client) -> IssuedIdentity:
        """The newest certificate of a rule, made now though the last one is still good, or after a no.

        ExplainedError, ProtocolError.
        """
        before, patience = state.newest, min(self._settings.config.prompt_timeout, _LONGEST)
        try:
            async with asyncio.timeout(patience):
                while state.newest is before:
                    with suppress(StoppedError):
                        await state.attempt.join(partial(self._make, state, client, None))
                    if self._states.get((state.rule, state.guest)) is not state:
                        raise RequestRefusedError("the agent was locked or emptied meanwhile")
        except TimeoutError:
            raise RequestRefusedError(f"none was made within {patience:g} s") from None
        assert state.newest is not None
        return state.newest

    async def _make(self, state: RuleState, client: Client, host: Host | None) -> None:
        if state.guest is not None:
            self._allowance.take(state.guest)
        with state.attempt.stoppable():
            issued = await self._making.make(state, client, host)
        state.take(issued, time.time())
        self._forget_guests_of_before()
        self._show()
        if state.rule.certificate_file:
            await write_certificate(state.rule.certificate_file, issued)

    def _forget_guests_of_before(self) -> None:
        """Drop the keys of guests whose certificates have ended: there may be any number of them in time."""
        now = time.time()
        for key, state in list(self._states.items()):
            if state.guest is not None and state.is_over(now):
                self._drop(self._states.pop(key))

    def _report(self, state: RuleState | None, client: Client, host: Host, error: ExplainedError) -> None:
        now = time.time()
        renewed = state is not None and state.shown(now) is not None
        what = "the certificate is not renewed" if renewed else "no certificate"
        reason = f"{what} for a login at {host_in_words(host)}: {error.reason}"
        if state is not None:
            state.missing = Missing(now, error.reason, error.next_step)
        program = client.peer.program
        if self._refusals.add(client.peer.requester, REQUEST, program, reason, error.next_step, ""):
            log.warning(
                what,
                extra={
                    "program": program,
                    "destination": host_in_words(host),
                    "why": error.reason,
                    "next_step": error.next_step,
                },
            )


def _no_rule(client: Client) -> RequestRefusedError:
    name = client.guest.name if client.guest is not None else ""
    return RequestRefusedError(
        f"no [[certificate]] for user {name} is for this host",
        "its key has to be in /etc/ssh/ssh_known_hosts, under a name in hosts of config.toml",
    )
