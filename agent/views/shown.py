"""The list of keys at a socket for some of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from replug.agent.clients.client import Client, ListAtHand, give_up
from replug.agent.clients.view import View
from replug.agent.config.socket_entry import SocketEntry
from replug.protocol.messages import IdentitiesAnswer

_NOTHING = IdentitiesAnswer(())


@dataclass
class _Kept:
    """The last list of a socket, what it was made of, and what was sent last."""

    others: IdentitiesAnswer = _NOTHING
    entry: SocketEntry | None = None
    answer: IdentitiesAnswer = _NOTHING
    at_hand: ListAtHand = field(default_factory=partial(ListAtHand, is_shared=True))
    none_at_hand: ListAtHand = field(default_factory=partial(ListAtHand, is_shared=True))
    """The same for those that may not log in where they want to."""


class ShownAtViews:
    """Leaves out what a socket does not show."""

    def __init__(self) -> None:
        self._kept: dict[View, _Kept] = {}

    def at_hand(self, client: Client, view: View) -> ListAtHand:
        """What clients share that see the same there."""
        kept = self._of(view)
        return kept.at_hand if view.is_open_for(client.only_host) else kept.none_at_hand

    def answer(self, client: Client, view: View, others: IdentitiesAnswer) -> IdentitiesAnswer:
        """The list for the client, made of all that it could see without the socket's rule."""
        if not view.is_open_for(client.only_host):
            return _NOTHING
        kept = self._of(view)
        if kept.others is not others or kept.entry is not view.entry:
            shown = (one for one in others.identities if view.shows(one.key_blob, one.comment))
            kept.answer = IdentitiesAnswer(tuple(shown))
            kept.others, kept.entry = others, view.entry
        return kept.answer

    def forget(self) -> None:
        """Forget all lists: some of the sockets may not be there any more."""
        for kept in self._kept.values():
            give_up((kept.at_hand, kept.none_at_hand))
        self._kept.clear()

    def _of(self, view: View) -> _Kept:
        return self._kept.setdefault(view, _Kept())
