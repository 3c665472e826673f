"""The list of keys for a login at one host: in the order of the rules, without what is for other hosts."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import dataclass

from replug.agent.clients.client import Client
from replug.agent.clients.command_line import command_line
from replug.agent.config.key_rule import Fit
from replug.agent.config.settings import Settings
from replug.agent.key_rules.about_keys import AboutKeys
from replug.agent.key_rules.destinations import Destinations
from replug.agent.key_rules.fitting import fits_of
from replug.agent.key_rules.order import FEW, order
from replug.agent.key_rules.repositories import asked_repository
from replug.protocol.messages import IdentitiesAnswer
from replug.protocol.purpose import Host
from replug.protocol.purpose_text import host_in_words

log = logging.getLogger(__name__)

_MOST_MADE = 16
"""Lists kept at once; each may be as long as a message."""


@dataclass(frozen=True)
class _Made:
    others: IdentitiesAnswer
    """What it was made of."""
    answer: IdentitiesAnswer


class ListsByHost:
    """Makes a list once for all logins that get the same."""

    def __init__(self, settings: Settings, destinations: Destinations) -> None:
        self._settings = settings
        self._destinations = destinations
        self._made: dict[Hashable, _Made] = {}
        self._known = AboutKeys(())

    async def was_bound(self, client: Client) -> None:
        """Find out what git wants, if a rule goes by that; takes a fraction of a second at most."""
        rules = self._settings.config.key_rules
        if client.logs_in_at is not None and any(rule.repositories for rule in rules):
            command = await command_line(client.peer.pid)
            client.repository = None if command is None else asked_repository(command)

    def kind_of(self, client: Client) -> Hashable:
        """What of a client decides about its list: equal for those that get the same of the same keys."""
        host = client.logs_in_at
        if host is None or client.guest is not None:
            return None
        return self._fits(client, host), self._destinations.accepted(host.fingerprint)

    def answer(self, client: Client, others: IdentitiesAnswer, *, may_be_empty: bool) -> IdentitiesAnswer:
        """The list for a client which sees `others`; these where it is not known where it logs in.

        `may_be_empty`: the client gets a certificate besides.
        """
        host = client.logs_in_at
        if host is None or client.guest is not None:
            return others
        kind = self.kind_of(client), may_be_empty
        made = self._made.get(kind)
        if made is None or made.others is not others:
            if len(self._made) >= _MOST_MADE:
                self._made.clear()
            made = self._made[kind] = _Made(others, self._make(client, host, others, may_be_empty))
        if len(made.answer.identities) > FEW:
            self._destinations.unused.listed(host, len(made.answer.identities), client.peer.program)
        return made.answer

    def _make(
        self, client: Client, host: Host, others: IdentitiesAnswer, may_be_empty: bool
    ) -> IdentitiesAnswer:
        rules, accepted = self._settings.config.key_rules, self._destinations.accepted(host.fingerprint)
        keys, fits = others.identities, self._fits(client, host)
        made = order(keys, map(self._about(), keys), rules, fits, accepted, may_be_empty=may_be_empty)
        if made.none_fits:
            log.info(
                "all keys are listed, as the rules would leave none",
                extra={"destination": host_in_words(host), "program": client.peer.program},
            )
        return others if made.entries == others.identities else IdentitiesAnswer(made.entries)

    def _fits(self, client: Client, host: Host) -> tuple[Fit, ...]:
        rules = self._settings.config.key_rules
        if client.placed_by is not rules:
            client.placed_by, client.fits = rules, fits_of(rules, host, client.repository)
        return client.fits

    def has_rules_for(self, client: Client) -> bool:
        """Whether its list depends on rules."""
        rules = self._settings.config.key_rules
        return bool(rules) and client.logs_in_at is not None and client.guest is None

    def takes_long(self, others: IdentitiesAnswer) -> bool:
        """Whether `answer` is to wait until `find_about` has found out about these keys."""
        return self._about().take_long(others.identities)

    def find_about(self, others: IdentitiesAnswer) -> None:
        """Compare the keys with the rules; slow, and for a thread."""
        self._about().find(others.identities)

    def _about(self) -> AboutKeys:
        rules = self._settings.config.key_rules
        if self._known.rules is not rules:
            self._known = AboutKeys(rules)
        return self._known

    def forget(self) -> None:
        """Make all lists again: the rules are others, or the keys are gone."""
        self._made.clear()
