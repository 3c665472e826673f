"""One PKCS#11 module: its workers, and when and why its slots are scanned.

`slot_scan.py` has the scan, `served_tokens.py` what it means for the tokens.

All tokens of a module share its workers. A module for cards has one worker: a second process would bind the
same cards, and selecting a card's application again makes many of them forget that the PIN was verified.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum, auto

from replug.token.errors import ModuleUnreachableError
from replug.token.identity import TokenId
from replug.token.keys import TokenKey
from replug.token.modules.served_tokens import ServedTokens
from replug.token.modules.slot_scan import View, scan
from replug.token.names.load_arguments import PLAIN, LoadArguments, passes_on
from replug.token.names.uri import Uri
from replug.token.pins.pin import PinCache
from replug.token.pins.policy import PolicyOf
from replug.token.prompts.request import Prompter
from replug.token.serving.recovery import attempt
from replug.token.serving.served import ServedToken
from replug.token.worker.card_turns import CardTurns
from replug.token.worker.deadlines import Deadlines
from replug.token.worker.forking import ForkServer
from replug.token.worker.pool import WorkerPool

_CLOSE = 1.0  # seconds between close looks while a token is missed; each may cost a command to a card
_NEVER = float("-inf")
_MOST_SCANS = 3  # of one look
_READ_WITHIN = 2.0  # seconds after a card was inserted
_LONGEST_DESCRIPTION = 64
"""Characters of a slot's description (CK_SLOT_INFO); readers may have longer names."""


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
        cards: CardTurns,
        arguments: LoadArguments = PLAIN,
    ) -> None:
        """`workers` is how many signatures may be made at the same time; cards require 1.

        `changed` is called after each change of the tokens, their states or their keys; `cards` are shared
        with other modules.
        """
        self.path = path
        self._pool = WorkerPool(path, fork_server, deadlines, cards, workers, arguments)
        self._served = ServedTokens(self._pool, pins, prompter, policy_of, changed)
        self._view: View | None = None
        self._present: set[TokenId] = set()
        """The tokens that were present when `_view` was taken."""
        self._reader_of: dict[TokenId, str] = {}
        """The readers they were in, by the descriptions of their slots."""
        self._asked_for = False
        """Whether the keys were listed, without those of a token that is out, since the last close look."""
        self._inserted = _NEVER
        """When a card was inserted that may be a missed token, on the loop's clock, until one is read."""
        self._inserted_again = _NEVER
        """The same of the last one: what comes and goes without being read is waited for once."""
        self._removals = 0
        """How often tokens were seen to leave, other than by a scan."""
        self._close_look = _NEVER
        """When the last one began, on the loop's clock."""

    @property
    def tokens(self) -> dict[TokenId, ServedToken]:
        """The served tokens, in or out."""
        return self._served.by_identity

    @property
    def busy(self) -> bool:
        """Whether its first worker is in use."""
        return self._pool.busy

    def shows_life(self, within: float) -> bool:
        """Whether a worker is in use and did something in the last `within` seconds.

        What a program at the other end of a connection does is no sign: it may go on for ever.
        """
        if passes_on(self.path):
            return False
        sign = self._pool.last_sign
        return sign is not None and asyncio.get_running_loop().time() - sign < within

    @property
    def used_at(self) -> float:
        """When a client last used one of its tokens that was logged in, on the loop's clock."""
        return self._pool.used_at

    @property
    def takes_tokens(self) -> bool:
        """Whether tokens can be put into its slots; so it is where none has been seen."""
        slots = [] if self._view is None else self._view.slots
        return not slots or any(removable for _, _, removable in slots)

    @property
    def pace(self) -> Pace:
        """How often the slots are to be scanned now."""
        if not self.takes_tokens and not self._served.out:
            return Pace.SELDOM
        return Pace.QUICK if self._served.one_is_missed else Pace.USUAL

    @property
    def uses_pcscd(self) -> bool:
        """Whether its tokens are cards in readers of pcscd."""
        return self._pool.uses_pcscd

    @property
    def present_tokens(self) -> list[ServedToken]:
        """The served tokens that were in a slot at the last scan."""
        return self._served.present

    @property
    def _is_blind(self) -> bool:
        """Whether only another process can see that a token is back, and no token loses its login by that.

        So it is where none can be plugged in: a connection to a server was lost, or a store was read once.
        """
        lost = any(not token.removable for token in self._served.out)
        return lost and not any(token.wants_login for token in self._served.present)

    @property
    def expects_a_token(self) -> bool:
        """Whether a card was just inserted, and is not read yet, that may be a token that is missed."""
        return asyncio.get_running_loop().time() - self._inserted < _READ_WITHIN and bool(self._served.out)

    def listed(self) -> bool:
        """The keys were listed; whether that is a reason to look closely, as a token seems to be out."""
        is_out = bool(self._served.out)
        self._asked_for |= is_out
        return is_out

    def cards_changed(self, readers: Mapping[str, bool], *, arrived: bool) -> None:
        """Cards have left `readers` of pcscd, where there may be one again; whether one `arrived` in any.

        What is under way with their tokens is ended, as modules may take long to find out.
        """
        missed = self._served.out
        if arrived and self.uses_pcscd and missed:
            now = asyncio.get_running_loop().time()
            if now - self._inserted_again >= _READ_WITHIN:
                self._inserted = now
            self._inserted_again = now
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
        self._removals += 1
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
            self._removals += 1
            self._pool.removed([token.identity for token in tokens])

    def serve(self, choices: list[Uri]) -> None:
        """Serve the tokens that any of the URIs chooses, and no others; without URIs the workers end."""
        self._served.serve(choices)
        if not choices:
            self._pool.close()

    def recall(self, identity: TokenId, keys: Iterable[TokenKey], hidden: frozenset[bytes]) -> None:
        """As `ServedTokens.recall`."""
        self._served.recall(identity, keys, hidden)

    async def look(self, *, fresh: bool = False, closely: bool = True) -> list[ServedToken]:
        """Scan the slots and report to the tokens; return those that are new or have returned.

        With `fresh` a new process scans: it sees tokens that another process initialised, which a running
        one may not. Unless `closely`, only the list of slots is compared with the last one, which sends no
        command to a card and is enough while slots and states do not change. Raises TokenError when the
        module cannot be asked.
        """
        now = asyncio.get_running_loop().time()
        missed = self._asked_for or (self._served.one_is_missed and now - self._close_look >= _CLOSE)
        try:
            closely = closely or fresh or missed or self._present != self._now_present()
            known = None if closely else self._view
            if closely:
                self._close_look, self._asked_for = now, False
            fresh = fresh or (missed and self._is_blind)
            for _ in range(_MOST_SCANS):
                removals = self._removals
                seen = await attempt(self._pool, scan, known, self.path, self._served.alike, fresh=fresh)
                if removals == self._removals:
                    break
                # A token has left since the module was asked: it may still have been seen.
                known = None
        except ModuleUnreachableError as error:
            self._view = None
            for token in self.tokens.values():
                token.cut_off(error.reason)
            raise
        if seen is None:
            return []
        self._view, infos = seen
        self._reader_of = {info.identity: info.reader for info in infos}
        arrived = self._served.take(infos)
        if arrived:
            self._inserted = self._inserted_again = _NEVER
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
        return {token.identity for token in self._served.present}
