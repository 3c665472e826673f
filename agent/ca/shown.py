"""The list of keys with the certificates that a client is to see in it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import inf

from replug.agent.ca.issuing import Issuing
from replug.agent.clients.client import Client
from replug.agent.config.certificate_rule import CertificateRule
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
        self._made: dict[tuple[bool, CertificateRule | None], _Made] = {}

    def answer(self, client: Client, others: IdentitiesAnswer) -> tuple[IdentitiesAnswer, float]:
        """The list for a client, which sees these `others`, and until when it is right (since 1970).

        A connection for a login at one host is listed the certificate for it, any other that is bound none,
        and one that is not bound all there are.
        """
        if not self._settings.config.certificate_rules:
            return others, inf
        now, state = time.time(), self._issuing.state_for(client)
        if state is not None:
            first, until = state.listed(now), state.due(now)
        elif client.remote:
            first, until = (), inf
        else:
            states = self._issuing.states()
            first = tuple(held for one in states for held in one.listed(now))
            until = min((end for one in states if (end := one.ends(now)) is not None), default=inf)
        place = client.remote, None if state is None else state.rule
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
