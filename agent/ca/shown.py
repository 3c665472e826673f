"""The list of keys with the certificates that a client is to see in it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import inf

from replug.agent.ca.issuing import Issuing
from replug.agent.ca.rule_state import RuleState
from replug.agent.clients.client import Client
from replug.agent.config.settings import Settings
from replug.agent.keys.identity import Identity
from replug.agent.keys.listing import cut_to_fit
from replug.protocol.messages import IdentitiesAnswer


@dataclass(frozen=True)
class _Made:
    """A list, and what it was made of."""

    others: IdentitiesAnswer
    first: tuple[Identity, ...]
    answer: IdentitiesAnswer


class ShownCertificates:
    """Puts certificates first."""

    def __init__(self, settings: Settings, issuing: Issuing) -> None:
        self._settings = settings
        self._issuing = issuing
        self._made: dict[RuleState | bool, _Made] = {}
        """By the rule's state, or else by whether the client is bound to anything; not of guests."""

    def answer(self, client: Client, others: IdentitiesAnswer) -> tuple[IdentitiesAnswer, float]:
        """The list for a client, which sees these `others`, and until when it is right (since 1970).

        A connection for a login at one host is listed the certificate for it, any other that is bound none,
        and one that is not bound all there are.
        """
        if client.guest is None and not self._settings.options.config.own_rules:
            return others, inf
        now, state = time.time(), self._issuing.state_for(client)
        first: tuple[Identity, ...] = ()
        until = inf
        if state is not None:
            shown = state.shown(now)
            first, until = ((), 0.0) if shown is None else (shown.identities, shown.due)
        elif not client.remote:
            all_shown = [
                shown for one in self._issuing.states_of(client) if (shown := one.shown(now)) is not None
            ]
            first = tuple(held for shown in all_shown for held in shown.identities)
            until = min((shown.ends for shown in all_shown), default=inf)
        if not first:
            return others, until
        if client.guest is not None:
            return self._make(others, first), until
        place = client.remote if state is None else state
        made = self._made.get(place)
        if made is None or made.others is not others or made.first != first:
            made = self._made[place] = _Made(others, first, self._make(others, first))
        return made.answer, until

    def forget(self) -> None:
        """Make all lists again: the rules are others."""
        self._made.clear()

    def _make(self, others: IdentitiesAnswer, first: tuple[Identity, ...]) -> IdentitiesAnswer:
        there = {held.blob for held in first}
        behind = (entry for entry in others.identities if entry.key_blob not in there)
        return IdentitiesAnswer(cut_to_fit([*(held.listed for held in first), *behind]))
