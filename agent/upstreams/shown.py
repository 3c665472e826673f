"""The list of keys with those of other agents in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from replug.agent.clients.client import Client
from replug.agent.keys.changes import Changes
from replug.agent.keys.listing import cut_to_fit
from replug.agent.upstreams.key_list import KeyList
from replug.agent.upstreams.upstreams import Upstreams
from replug.protocol.messages import IdentitiesAnswer, ListedIdentity

_MOST_KEPT = 4
"""Lists; each may be as long as a message."""


@dataclass(frozen=True)
class _Made:
    """A list, and what it was made of."""

    own: IdentitiesAnswer
    others: list[KeyList]
    changes: int
    remote: bool
    answer: IdentitiesAnswer


class ShownOthers:
    """Puts keys of other agents last, each once; what this agent holds is its own, shown or not."""

    def __init__(
        self,
        upstreams: Upstreams,
        changes: Changes,
        holds: Callable[[bytes], bool],
        is_ca_key: Callable[[bytes], bool],
    ) -> None:
        """`is_ca_key` says which keys are not shown to connections that are bound to a session."""
        self._upstreams = upstreams
        self._changes = changes
        self._holds = holds
        self._is_ca_key = is_ca_key
        self._made: deque[_Made] = deque(maxlen=_MOST_KEPT)

    def answer(self, client: Client, own: IdentitiesAnswer) -> IdentitiesAnswer:
        """The list for a client, which sees these keys of this agent."""
        others = self._upstreams.lists(client)
        if not any(keys.entries for keys in others):
            return own
        wanted = (self._changes.count, client.remote)
        for made in self._made:
            if (made.changes, made.remote) == wanted and made.own is own and made.others == others:
                return made.answer
        answer = IdentitiesAnswer(cut_to_fit([*own.identities, *self._to_add(client, others)]))
        self._made.append(_Made(own, others, *wanted, answer))
        return answer

    def _to_add(self, client: Client, others: list[KeyList]) -> Iterator[ListedIdentity]:
        seen: set[bytes] = set()
        for entry in chain.from_iterable(keys.entries for keys in others):
            blob = entry.key_blob
            if blob not in seen and not self._holds(blob) and not (client.remote and self._is_ca_key(blob)):
                yield entry
            seen.add(blob)
