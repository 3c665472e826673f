"""The list of keys that a client gets: made in stages, each from the list of the one before."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf

from replug.agent.ca.certifying import Certifying
from replug.agent.ca.issuing import Issuing
from replug.agent.ca.shown import ShownCertificates
from replug.agent.clients.client import Client, ListAtHand
from replug.agent.config.settings import Settings
from replug.agent.keys.changes import Changes
from replug.agent.keys.first_scan import FirstScan
from replug.agent.keys.identities import Identities
from replug.agent.keys.modules import Modules
from replug.agent.upstreams.shown import ShownOthers
from replug.agent.upstreams.upstreams import Upstreams
from replug.agent.views.shown import ShownAtViews
from replug.protocol.messages import IdentitiesAnswer

_QUICK_DESTINATIONS = 100
"""To compare a connection's sessions with more destination constraints takes too long for the event loop."""
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
        locked: Callable[[], bool],
    ) -> None:
        self._identities = identities
        self._certifying = certifying
        self._issuing = issuing
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
        self.at_hand = ListAtHand(is_shared=True)
        """For clients that are bound to no session, as they all see the same."""

    def listing(self, client: Client) -> IdentitiesAnswer:
        """As `Agent.listing`; the client has it at hand then, if it may be kept."""
        if client.view is not None:
            client.at_hand = self._views.at_hand(client, client.view)
        elif client.remote and self._identities.shown.destinations:
            client.at_hand = ListAtHand()
        at_hand = client.at_hand
        at_hand.make_anew(self._changes.count)
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
        keys = self._shown_others.answer(client, self._own(client))
        if client.view is not None:
            return self._views.answer(client, client.view, keys), inf
        return self._shown_certificates.answer(client, keys)

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

    def was_bound(self, client: Client) -> None:
        """As `Agent.was_bound`."""
        if client.view is not None:
            client.at_hand = self._views.at_hand(client, client.view)
            return
        state = self._issuing.state_for(client)
        if state is not None and client.guest is None and not self._identities.shown.destinations:
            client.at_hand = state.at_hand  # all that log in there see the same

    def forget(self) -> None:
        """Make all lists again: the configuration is another, or everything was removed."""
        self._shown_certificates.forget()
        self._views.forget()
