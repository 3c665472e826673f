"""The tokens of one module that are served: which they are, and what a scan of the slots means for them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable

from replug.token.boottime import boottime
from replug.token.identity import TokenId, TokenInfo
from replug.token.keys import TokenKey
from replug.token.names.uri import Uri
from replug.token.pins.pin import PinCache
from replug.token.pins.policy import PolicyOf
from replug.token.prompts.request import Prompter
from replug.token.serving.served import ServedToken
from replug.token.worker.pool import WorkerPool

log = logging.getLogger(__name__)

_MISSED_FOR = 120.0  # seconds after a removal in which the token is expected back
_MOST_TOKENS = 128
"""That are remembered, in or out: a module may show others at each look, and each costs at every change."""


class ServedTokens:
    """The served tokens of the module of `pool`."""

    def __init__(
        self,
        pool: WorkerPool,
        pins: PinCache,
        prompter: Prompter,
        policy_of: PolicyOf,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called after each change of the tokens, their states or their keys."""
        self.by_identity: dict[TokenId, ServedToken] = {}
        self._pool = pool
        self._pins = pins
        self._prompter = prompter
        self._policy_of = policy_of
        self._changed = changed
        self._choices: list[Uri] = []
        self._taking = self._changed_meanwhile = self._said_full = False

    @property
    def all(self) -> list[ServedToken]:
        """All of them, in or out."""
        return list(self.by_identity.values())

    @property
    def present(self) -> list[ServedToken]:
        """Those that were in a slot at the last scan."""
        return [token for token in self.all if token.present]

    @property
    def out(self) -> list[ServedToken]:
        """The others."""
        return [token for token in self.all if not token.present]

    @property
    def one_is_missed(self) -> bool:
        """Whether one left recently and may be back at any moment."""
        left = (token.left_at for token in self.out)
        return any(when is not None and boottime() - when < _MISSED_FOR for when in left)

    def alike(self, original: TokenId) -> list[ServedToken]:
        """Those that say the same of themselves as `original`."""
        return [token for identity, token in self.by_identity.items() if identity.original == original]

    def serve(self, choices: list[Uri]) -> None:
        """Serve the tokens that any of the URIs chooses, and no others."""
        self._choices = choices
        for identity in [identity for identity in self.by_identity if not self._is_chosen(identity)]:
            self.by_identity.pop(identity).close()

    def recall(self, identity: TokenId, keys: Iterable[TokenKey], hidden: frozenset[bytes]) -> None:
        """Serve a token that was seen before, as one that is out, if it is chosen and not served yet."""
        if self._is_chosen(identity) and identity not in self.by_identity:
            self._serve(identity).recall(keys, hidden)

    def take(self, infos: list[TokenInfo]) -> list[ServedToken]:
        """Report to the tokens what a scan has found; those that are new or have returned."""
        self._taking = True
        try:
            return self._report(infos)
        finally:
            self._taking = False
            if self._changed_meanwhile:
                self._changed_meanwhile = False
                self._changed()

    def _report(self, infos: list[TokenInfo]) -> list[ServedToken]:
        there = {info.identity for info in infos}
        gone = [token for identity, token in self.by_identity.items() if identity not in there]
        has_session = any(token.present for token in gone)
        for token in gone:
            token.left()
        if has_session:
            # The session with it is dead, and stays dead when the token is back.
            self._pool.restart()
        arrived = []
        originals = Counter(identity.original for identity in {*self.by_identity, *there})
        for info in infos:
            if info.identity not in self.by_identity and self._is_chosen(info.identity) and self._has_room():
                self._serve(info.identity)
            served = self.by_identity.get(info.identity)
            if served is not None:
                served.slot = info.slot
                served.pin_owner.has_twin |= originals[info.identity.original] > 1
                if served.seen(info.flags):
                    arrived.append(served)
        return arrived

    def _serve(self, identity: TokenId) -> ServedToken:
        token = self.by_identity[identity] = ServedToken(
            identity, self._pool, self._pins, self._prompter, self._policy_of, self._token_changed
        )
        return token

    def _is_chosen(self, identity: TokenId) -> bool:
        return any(uri.matches_token(identity) for uri in self._choices)

    def _has_room(self) -> bool:
        """Whether one more token can be remembered, in place of one that left a while ago if need be."""
        if len(self.by_identity) < _MOST_TOKENS:
            return True
        left = ((token.left_at, token) for token in self.by_identity.values() if not token.present)
        gone = [(when, token) for when, token in left if when is not None and not token.pin_remembered]
        when, oldest = min(gone, key=lambda one: one[0], default=(boottime(), None))
        if oldest is None or boottime() - when < _MISSED_FOR:
            if not self._said_full:
                self._said_full = True
                log.warning(
                    "only the first tokens are served",
                    extra={"path": self._pool.path, "tokens": _MOST_TOKENS},
                )
            return False
        self.by_identity.pop(oldest.identity).close()
        return True

    def _token_changed(self) -> None:
        """Pass it on; of many at once, one."""
        if self._taking:
            self._changed_meanwhile = True
        else:
            self._changed()
