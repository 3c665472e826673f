"""The list of keys that a client gets: made in stages, each from the list of the one before."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from math import inf

from replug.agent.ca.certifying import Certifying
from replug.agent.ca.issuing import Issuing
from replug.agent.ca.shown import ShownCertificates
from replug.agent.clients.client import Client, ListAtHand, give_up
from replug.agent.config.settings import Settings
from replug.agent.key_rules.by_host import ListsByHost
from replug.agent.key_rules.destinations import Destinations
from replug.agent.keys.changes import Changes
from replug.agent.keys.first_scan import FirstScan
from replug.agent.keys.identities import Identities
from replug.agent.keys.modules import Modules
from replug.agent.upstreams.shown import ShownOthers
from replug.agent.upstreams.upstreams import Upstreams
from replug.agent.views.shown import ShownAtViews
from replug.protocol.messages import IdentitiesAnswer
from replug.token.offload import Aside

_QUICK_DESTINATIONS = 100
"""To compare a connection's sessions with more destination constraints takes too long for the event loop."""
_MOST_AT_HAND = 64
"""Kinds of clients that have a list at hand; each list may be as long as a message."""
_NOTHING = IdentitiesAnswer(())


class Listings:
    """Each stage keeps what it has made as long as what that was made of is the same object."""

    def __init__(
        self,
        settings: Settings,
        identities: Identities,
        certifying: Certifying,
        issuing: Issuing,
        modules: Modules,
        first_scan: FirstScan,
        upstreams: Upstreams,
        changes: Changes,
        destinations: Destinations,
        locked: Callable[[], bool],
    ) -> None:
        self._identities = identities
        self._certifying = certifying
        self._issuing = issuing
        self._by_host = ListsByHost(settings, destinations)
        self._shown_certificates = ShownCertificates(settings, issuing)
        self._views = ShownAtViews()
        self._upstreams = upstreams
        self._shown_others = ShownOthers(
            upstreams, changes, lambda blob: bool(identities.holding(blob)), certifying.names_blob
        )
        self._modules = modules
        self._first_scan = first_scan
        self._changes = changes
        self._locked = locked
        # Not the agent's: many keys would be in the way of a session-bind, with which ssh begins.
        self._comparing = Aside()
        self._at_hand = ListAtHand(is_shared=True)
        """For clients that are bound to no session, as they all see the same."""
        self._for_logins: dict[Hashable, ListAtHand] = {}
        """For those that log in at a host, by what decides about their lists."""

    def at_hand_for(self, client: Client) -> ListAtHand:
        """What a client that has just connected has at hand."""
        if client.view is not None:
            return self._views.at_hand(client, client.view)
        return self._at_hand if client.guest is None else ListAtHand()

    def listing(self, client: Client) -> IdentitiesAnswer:
        """As `Agent.listing`; the client has it at hand then, if it may be kept."""
        client.at_hand = at_hand = self._place_of(client)
        at_hand.begin(self._changes.count)
        if self._locked():
            answer = _NOTHING
        else:
            # Modules with tokens that are out are to know of each list.
            out = [module for module in self._modules if module.listed()]
            answer, at_hand.until = self._of(client)
            if out or not self._first_scan.done:
                return answer
        if at_hand.is_shared and not self._upstreams.asks_for(client):
            at_hand.frame = answer.framed
        return answer

    def _of(self, client: Client) -> tuple[IdentitiesAnswer, float]:
        """The list for a client, and until when it is right (since 1970)."""
        keys = self._all(client)
        if client.view is not None:
            return self._views.answer(client, client.view, keys), inf
        certified = client.remote and self._issuing.has_for(client)
        keys = self._by_host.answer(client, keys, may_be_empty=certified)
        return self._shown_certificates.answer(client, keys)

    def _all(self, client: Client) -> IdentitiesAnswer:
        """The keys that it may see, its own and other agents', in no order of its own."""
        return self._shown_others.answer(client, self._own(client))

    def rules_take_long(self, client: Client) -> bool:
        """As `Agent.rules_take_long`."""
        if self._locked() or not self._by_host.has_rules_for(client):
            return False
        return self._by_host.takes_long(self._all(client))

    async def apply_rules(self, client: Client) -> None:
        """As `Agent.apply_rules`."""
        await self._comparing.run(partial(self._by_host.find_about, self._all(client)))

    def _place_of(self, client: Client) -> ListAtHand:
        """Where its list is kept. With destinations, each client that is bound sees something else."""
        if client.view is not None:
            return self._views.at_hand(client, client.view)
        if not client.remote:
            return client.at_hand
        if client.logs_in_at is None or client.guest is not None or self._identities.shown.destinations:
            return ListAtHand()
        asks = self._upstreams.asks_for(client)
        kind = self._issuing.state_for(client), self._by_host.kind_of(client), asks
        if len(self._for_logins) >= _MOST_AT_HAND and kind not in self._for_logins:
            self._forget_logins()
        return self._for_logins.setdefault(kind, ListAtHand(is_shared=True))

    def _own(self, client: Client) -> IdentitiesAnswer:
        """The identities of the agent that the client may see."""
        if client.guest is not None:
            return _NOTHING
        return self._identities.shown.answer(partial(self._certifying.shows, client=client))

    def takes_long(self, client: Client) -> bool:
        """Whether to make the listing is something for `Agent.aside`."""
        return (
            not self._locked()
            and bool(client.sessions.bindings)
            and self._identities.shown.destinations > _QUICK_DESTINATIONS
        )

    async def was_bound(self, client: Client) -> None:
        """As `Agent.was_bound`."""
        if client.view is not None:
            client.at_hand = self._views.at_hand(client, client.view)
        await self._by_host.was_bound(client)

    def forget(self) -> None:
        """Make all lists again: the configuration is another, or everything was removed."""
        self._shown_certificates.forget()
        self._views.forget()
        self._by_host.forget()
        self._forget_logins()

    def _forget_logins(self) -> None:
        give_up(self._for_logins.values())
        self._for_logins.clear()
