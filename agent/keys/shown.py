"""What clients are shown of the identities: each key once, of the restricted ones what this client sees."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from replug.agent.keys.identity import AddedIdentity, Identity, TokenBackedIdentity
from replug.agent.keys.listing import Listing
from replug.protocol.messages import IdentitiesAnswer
from replug.token.serving.presence import TokenState

log = logging.getLogger(__name__)

_MOST_ANSWERS = 16
"""Kept at once; each may be as long as a message."""


class Shown:
    """The lists, made when something changes or when the first client asks that sees the same."""

    def __init__(self, lists_absent: Callable[[], bool], is_ca: Callable[[Identity], bool]) -> None:
        """As for `replug.agent.keys.identities.Identities`."""
        self.lists_absent = lists_absent
        self.is_ca = is_ca
        self._held: Sequence[Identity] = ()
        self.all: list[Identity] = []
        """What is listed for a client that sees everything."""
        self._listing = Listing.of(())
        """Made of `all`; used while nothing is `_restricted`."""
        self._restricted: list[Identity] = []
        """Those with destinations, and CA keys, which not all clients see."""
        self._answers: dict[tuple[bool, ...], IdentitiesAnswer] = {}
        """The lists made since the last change, by which of `_restricted` are seen."""
        self._left_out: dict[str, int] = {}
        """How many identities of each place the list has no room for."""
        self.destinations = 0
        """How many destination constraints there are."""

    def arrange(self, held: Sequence[Identity]) -> None:
        """Show these from now on. A key that is added to the same list later is for `append`."""
        self._held = held
        self.all = self._to_list(held)
        self._restricted = [one for one in held if self._is_restricted(one)]
        self.destinations = sum(len(one.constraints.destinations) for one in self._restricted)
        self._answers = {}
        self._listing = Listing.of(self.all)
        self._say_what_is_left_out()

    def append(self, key: AddedIdentity, place: int) -> bool:
        """Show one more, as number `place` of all; False if there is no room, or others are left out."""
        listing = self._listing.with_one_more(key, place)
        if listing is None:
            return False
        self.all.insert(place, key)
        self._listing = listing
        if self._is_restricted(key):
            self.destinations += len(key.constraints.destinations)
            self._restricted.append(key)
        self._answers = {}
        return True

    def to(self, visible: Callable[[Identity], bool]) -> list[Identity]:
        """What is listed for a client; `visible` says which of the restricted identities it sees."""
        if not self._restricted:
            return self.all
        return self._to_list(held for held in self._held if not self._is_restricted(held) or visible(held))

    def answer(self, visible: Callable[[Identity], bool]) -> IdentitiesAnswer:
        """`to` as the reply to the client; made once for all clients that see the same."""
        if not self._restricted:
            return self._listing.answer
        answers = self._answers  # a change meanwhile, if this is not the loop's thread, begins another
        seen = tuple(visible(held) for held in self._restricted)
        if seen not in answers:
            if len(answers) >= _MOST_ANSWERS:
                answers.clear()
            answers[seen] = Listing.of(self.to(visible)).answer
        return answers[seen]

    def _is_restricted(self, held: Identity) -> bool:
        return bool(held.constraints.destinations) or self.is_ca(held)

    def _to_list(self, identities: Iterable[Identity]) -> list[Identity]:
        """Each key once; those whose tokens are out last, if at all: ssh tries them in order."""
        held = list(identities)
        present = [one for one in held if _is_in(one)]
        return _once_each([*present, *held] if self.lists_absent() else present)

    def _say_what_is_left_out(self) -> None:
        left_out: dict[str, list[Identity]] = {}
        for held in self._listing.left_out:
            left_out.setdefault(held.place, []).append(held)
        counts = {place: len(held) for place, held in left_out.items()}
        for place, there in left_out.items() if counts != self._left_out else ():
            log.warning(
                "the list of keys is full: some are not listed",
                extra={"place": place, "keys": len(there), "first": there[0].fingerprint},
            )
        self._left_out = counts


def _is_in(held: Identity) -> bool:
    return not isinstance(held, TokenBackedIdentity) or held.token.state is not TokenState.ABSENT


def _once_each(identities: Iterable[Identity]) -> list[Identity]:
    once: dict[bytes, Identity] = {}
    for held in identities:
        once.setdefault(held.blob, held)
    return list(once.values())
