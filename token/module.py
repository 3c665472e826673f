"""One PKCS#11 module: its workers, and those of its tokens that are served.

All tokens of a module share its workers. A module for cards has one worker: a second process would bind the
same cards, and selecting a card's application again makes many of them forget that the PIN was verified.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from enum import Enum, auto

from replug.token.boottime import boottime
from replug.token.errors import ModuleUnreachableError, WorkerRefusedError
from replug.token.identity import TokenId, TokenInfo
from replug.token.keys import TokenKey
from replug.token.operations import read_all
from replug.token.pins.pin import PinCache
from replug.token.pins.policy import PolicyOf
from replug.token.prompts.request import Prompter
from replug.token.recovery import attempt
from replug.token.served import ServedToken
from replug.token.twins import Known, Seen, tell_apart
from replug.token.uri import Uri
from replug.token.worker.client import Slots, WorkerClient
from replug.token.worker.deadlines import Deadlines
from replug.token.worker.forking import ForkServer
from replug.token.worker.load_arguments import PLAIN, LoadArguments
from replug.token.worker.pool import WorkerPool

log = logging.getLogger(__name__)

_MOST_TOKENS = 128
"""That are remembered, in or out: a module may show others at each look, and each costs at every change."""
_MISSED_FOR = 120.0  # seconds after a removal in which the token is expected back
_CLOSE = 1.0  # seconds between close looks while a token is missed; each may cost a command to a card
_LONGEST_DESCRIPTION = 64
"""Characters of a slot's description (CK_SLOT_INFO); readers may have longer names."""
View = tuple[int, Slots]
"""The slots as the worker with this process id saw them."""


class Pace(Enum):
    """How often the slots are to be scanned."""

    QUICK = auto()
    """A token left a moment ago and will soon be wanted."""
    USUAL = auto()
    SELDOM = auto()
    """No token can be removed, and each call may be a round trip over a network."""


class Module:
    """The served tokens of the shared library at `path` (canonical)."""

    def __init__(
        self,
        path: str,
        pins: PinCache,
        prompter: Prompter,
        deadlines: Deadlines,
        workers: int,
        policy_of: PolicyOf,
        changed: Callable[[], None],
        fork_server: ForkServer,
        arguments: LoadArguments = PLAIN,
    ) -> None:
        """`workers` is how many signatures may be made at the same time; cards require 1.

        `changed` is called after each change of the tokens, their states or their keys.
        """
        self.path = path
        self.tokens: dict[TokenId, ServedToken] = {}
        self._choices: list[Uri] = []
        self._pins = pins
        self._prompter = prompter
        self._policy_of = policy_of
        self._changed = changed
        self._pool = WorkerPool(path, fork_server, deadlines, workers, arguments)
        self._view: View | None = None
        self._taking = self._changed_meanwhile = self._said_full = False
        self._present: set[TokenId] = set()
        """The tokens that were present when `_view` was taken."""
        self._reader_of: dict[TokenId, str] = {}
        """The readers they were in, by the descriptions of their slots."""
        self._asked_for = False
        """Whether the keys were listed, without those of a token that is out, since the last close look."""
        self._close_look = float("-inf")
        """When the last one began, on the loop's clock."""

    @property
    def busy(self) -> bool:
        """Whether its first worker is in use."""
        return self._pool.busy

    def shows_life(self, within: float) -> bool:
        """Whether a worker is in use and did something in the last `within` seconds."""
        sign = self._pool.last_sign
        return sign is not None and asyncio.get_running_loop().time() - sign < within

    @property
    def misses_a_token(self) -> bool:
        """Whether a token left recently and may be back at any moment."""
        left = (token.left_at for token in self.tokens.values() if not token.present)
        return any(when is not None and boottime() - when < _MISSED_FOR for when in left)

    @property
    def takes_tokens(self) -> bool:
        """Whether tokens can be put into its slots; so it is where none has been seen."""
        slots = [] if self._view is None else self._view[1]
        return not slots or any(removable for _, _, removable in slots)

    @property
    def pace(self) -> Pace:
        """How often the slots are to be scanned now."""
        if not self.takes_tokens and all(token.present for token in self.tokens.values()):
            return Pace.SELDOM
        return Pace.QUICK if self.misses_a_token else Pace.USUAL

    @property
    def uses_pcscd(self) -> bool:
        """Whether its tokens are cards in readers of pcscd."""
        return self._pool.uses_pcscd

    @property
    def present_tokens(self) -> list[ServedToken]:
        """The served tokens that were in a slot at the last scan."""
        return [token for token in self.tokens.values() if token.present]

    @property
    def _is_blind(self) -> bool:
        """Whether only another process can see that a token is back, and no token loses its login by that.

        So it is where none can be plugged in: a connection to a server was lost, or a store was read once.
        """
        tokens = self.tokens.values()
        lost = any(not token.present and not token.removable for token in tokens)
        return lost and not any(token.present and token.wants_login for token in tokens)

    def listed(self) -> None:
        """The keys were listed. If a token seems to be out, that is a reason to look closely."""
        if not all(token.present for token in self.tokens.values()):
            self._asked_for = True

    def cards_changed(self, readers: Mapping[str, bool], *, arrived: bool) -> None:
        """Cards have left `readers` of pcscd, where there may be one again; whether one `arrived` in any.

        What is under way with their tokens is ended, as modules may take long to find out.
        """
        missed = [token for token in self.tokens.values() if not token.present]
        if arrived and self.uses_pcscd and missed:
            for token in missed:
                token.may_be_back()
            # libykcs11 may not find a card that it could not reach at once; a fresh process does. Not while
            # a card is being pulled: at its end the old process resets the card, and pcscd gives one up that
            # cannot be reset.
            self._pool.restart_if_useless()
        descriptions = {reader[:_LONGEST_DESCRIPTION].rstrip(): again for reader, again in readers.items()}
        left = {
            token: descriptions[reader] for token, reader in self._reader_of.items() if reader in descriptions
        }
        if not left:
            return
        self._view = None
        for identity, occupied in left.items():
            if identity in self.tokens and not occupied:
                self.tokens[identity].left()
        self._pool.removed(left.keys())

    def tokens_left_elsewhere(self, gone: Collection[ServedToken]) -> None:
        """Another module has seen these tokens leave; one that pcscd reports on is known better."""
        if not self.uses_pcscd:
            self._removed(
                [
                    mine
                    for token in gone
                    if (mine := self.tokens.get(token.identity)) is not None
                    and mine.pin_owner.is_same_token(token.pin_owner)
                ]
            )

    def readers_unplugged(self) -> None:
        """No USB device that may hold a token is left. pcscd, if it is in use, reports that itself."""
        if not self.uses_pcscd and self.pace is not Pace.SELDOM:
            self._removed(self.present_tokens)

    def _removed(self, tokens: list[ServedToken]) -> None:
        if tokens:
            self._view = None
            self._pool.removed([token.identity for token in tokens])

    def serve(self, choices: list[Uri]) -> None:
        """Serve the tokens that any of the URIs chooses, and no others; without URIs the workers end."""
        self._choices = choices
        for identity in [identity for identity in self.tokens if not self._is_chosen(identity)]:
            self.tokens.pop(identity).close()
        if not choices:
            self._pool.close()

    def recall(self, identity: TokenId, keys: Iterable[TokenKey], hidden: frozenset[bytes]) -> None:
        """Serve a token that was seen before, as one that is out, if it is chosen and not served yet."""
        if self._is_chosen(identity) and identity not in self.tokens:
            self._serve(identity).recall(keys, hidden)

    async def look(self, *, fresh: bool = False, closely: bool = True) -> list[ServedToken]:
        """Scan the slots and report to the tokens; return those that are new or have returned.

        With `fresh` a new process scans: it sees tokens that another process initialised, which a running
        one may not. Unless `closely`, only the list of slots is compared with the last one, which sends no
        command to a card and is enough while slots and states do not change. Raises TokenError when the
        module cannot be asked.
        """
        now = asyncio.get_running_loop().time()
        missed = self._asked_for or (self.misses_a_token and now - self._close_look >= _CLOSE)
        try:
            closely = closely or fresh or missed or self._present != self._now_present()
            known = None if closely else self._view
            if closely:
                self._close_look, self._asked_for = now, False
            seen = await attempt(self._pool, self._scan, known, fresh=fresh or (missed and self._is_blind))
        except ModuleUnreachableError as error:
            self._view = None
            for token in self.tokens.values():
                token.cut_off(error.reason)
            raise
        if seen is None:
            return []
        self._view, infos = seen
        arrived = self._take(infos)
        # A signature that finds a token before we do changes its state, but not what we have seen.
        self._present = self._now_present()
        return arrived

    async def look_again(self) -> None:
        """Look with new processes, as soon as what is under way has ended. Raises TokenError."""
        self._pool.restart()
        for token in self.tokens.values():
            token.may_have_changed()
        await self.look()

    def _now_present(self) -> set[TokenId]:
        return {identity for identity, token in self.tokens.items() if token.present}

    def _token_changed(self) -> None:
        """Pass it on; of many changes at once, one."""
        if self._taking:
            self._changed_meanwhile = True
        else:
            self._changed()

    def _has_room(self) -> bool:
        """Whether one more token can be remembered, in place of one that left a while ago if need be."""
        if len(self.tokens) < _MOST_TOKENS:
            return True
        left = ((token.left_at, token) for token in self.tokens.values() if not token.present)
        gone = [(when, token) for when, token in left if when is not None and not token.pin_remembered]
        when, oldest = min(gone, key=lambda one: one[0], default=(boottime(), None))
        if oldest is None or boottime() - when < _MISSED_FOR:
            if not self._said_full:
                self._said_full = True
                log.warning(
                    "only the first tokens are served", extra={"path": self.path, "tokens": _MOST_TOKENS}
                )
            return False
        self.tokens.pop(oldest.identity).close()
        return True

    def _take(self, infos: list[TokenInfo]) -> list[ServedToken]:
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
        self._reader_of = {info.identity: info.reader for info in infos}
        gone = [token for identity, token in self.tokens.items() if identity not in there]
        has_session = any(token.present for token in gone)
        for token in gone:
            token.left()
        if has_session:
            # The session with it is dead, and stays dead when the token is back.
            self._pool.restart()
        arrived = []
        originals = Counter(identity.original for identity in {*self.tokens, *there})
        for info in infos:
            if info.identity not in self.tokens and self._is_chosen(info.identity) and self._has_room():
                self._serve(info.identity)
            served = self.tokens.get(info.identity)
            if served is not None:
                served.slot = info.slot
                served.pin_owner.has_twin |= originals[info.identity.original] > 1
                if served.seen(info.flags):
                    arrived.append(served)
        return arrived

    async def _scan(self, worker: WorkerClient, known: View | None) -> tuple[View, list[TokenInfo]] | None:
        """The slots and the tokens in them; None if this worker still sees what is `known`."""
        view = (worker.pid, await worker.slots())
        if view == known:
            return None
        infos = await worker.scan()
        who: dict[int, TokenId] = {}
        alike: dict[TokenId, list[TokenInfo]] = {}
        for info in infos:
            alike.setdefault(info.identity, []).append(info)
        for group in alike.values():
            who |= await self._tell_apart(worker, group)
            await asyncio.sleep(0)  # there may be a hundred tokens, and others want their turn
        return view, [replace(info, identity=who[info.slot]) for info in infos]

    async def _tell_apart(self, worker: WorkerClient, infos: list[TokenInfo]) -> dict[int, TokenId]:
        """Who the tokens are, by their slots, that are alike in all that `infos` say."""
        [original] = {info.identity for info in infos}
        alike = [token for identity, token in self.tokens.items() if identity.original == original]
        unique = original.has_serial and not any(token.pin_owner.has_twin for token in alike)
        if len(infos) == 1 and (not alike or (len(alike) == 1 and unique)):
            return {infos[0].slot: alike[0].identity if alike else original}
        if not alike:
            log.warning(
                "several tokens are alike; their keys, and then their slots, tell them apart",
                extra={"token": str(original), "path": self.path, "tokens": len(infos)},
            )
        seen = [Seen(info, await _keys_in(worker, info.slot)) for info in infos]
        served = [Known(token.identity, token.slot, token.pin_owner.keys.known) for token in alike]
        return dict(zip((info.slot for info in infos), tell_apart(seen, served), strict=True))

    def _serve(self, identity: TokenId) -> ServedToken:
        token = self.tokens[identity] = ServedToken(
            identity, self._pool, self._pins, self._prompter, self._policy_of, self._token_changed
        )
        return token

    def _is_chosen(self, identity: TokenId) -> bool:
        return any(uri.matches_token(identity) for uri in self._choices)


async def _keys_in(worker: WorkerClient, slot: int) -> set[bytes]:
    """The keys that the token in `slot` shows; none if it cannot be read: others can."""
    try:
        return set((await read_all(await worker.peek(slot))).keys)
    except WorkerRefusedError:
        return set()
