"""Hands a module's workers to callers, whose programs have turns."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from replug.token.errors import ModuleUnreachableError
from replug.token.identity import TokenId
from replug.token.names.load_arguments import PLAIN, LoadArguments
from replug.token.requester import NOBODY, requester
from replug.token.turns import FairQueue
from replug.token.worker.card_turns import CardTurns
from replug.token.worker.deadlines import Deadlines
from replug.token.worker.forking import ForkServer
from replug.token.worker.restarting import RestartingWorker
from replug.token.worker.starter import Starter

_NEVER = float("-inf")
_ASKED_AGAIN = 1.0
"""Seconds in which a client that was refused asks again, or another does."""


@dataclass(frozen=True)
class Outage:
    """Why the module is unreachable: no fresh worker could do what it was asked."""

    reason: str
    next_step: str
    tried_at: float
    """When the last one was asked, on the loop's clock."""
    silent: bool
    """Whether it did not answer in time."""

    def error(self) -> ModuleUnreachableError:
        """What its callers are told."""
        return ModuleUnreachableError(self.reason, self.next_step)


class WorkerPool:
    """The workers of one module. Each is used by one caller at a time; the others have turns (FairQueue).

    A module for cards has one worker: another process would bind the same card. One for a network HSM, or for
    keys in software, may have several, which sign at the same time.
    """

    def __init__(
        self,
        path: str,
        fork_server: ForkServer,
        deadlines: Deadlines,
        cards: CardTurns,
        workers: int = 1,
        arguments: LoadArguments = PLAIN,
    ) -> None:
        """`path` is the module's canonical path. All but the first of the `workers` start when needed.

        `cards` are shared with the pools of other modules.
        """
        if workers < 1:
            raise ValueError(f"a module needs a worker, not {workers}")
        self.path = path
        self.outage: Outage | None = None
        """Since when and why the module is unreachable, if it is; for `recovery.attempt`."""
        self._starter = Starter(path, arguments, fork_server, deadlines)
        self._workers = [RestartingWorker(self._starter) for _ in range(workers)]
        self._waiting: FairQueue[tuple[asyncio.Future[RestartingWorker], Sequence[RestartingWorker]]]
        self._waiting = FairQueue()
        self.wanted_at = _NEVER
        """When a client last wanted a worker, on the loop's clock."""
        self.used_at = _NEVER
        """When a client last gave one back that was logged in."""
        self._cards = cards
        cards.join(self)

    @property
    def busy(self) -> bool:
        """Whether a caller that wants the first worker has to wait."""
        return self._workers[0].busy

    @property
    def last_sign(self) -> float | None:
        """When a process last showed a sign of life, on the loop's clock; None while no caller has a worker.

        A caller that has one may still be at work with its last answer.
        """
        if not any(worker.busy for worker in self._workers):
            return None
        if self._cards.holds_back(self):
            return asyncio.get_running_loop().time()
        signs = [worker.last_sign for worker in self._workers]
        return max((self._starter.last_sign, *(sign for sign in signs if sign is not None)))

    @property
    def ending(self) -> bool:
        """Whether a process ends, and its logins with it, as soon as it is given back."""
        return any(worker.restart_pending for worker in self._workers)

    async def take(self, *, anywhere: bool = False) -> RestartingWorker:
        """The first worker, or with `anywhere` any; the caller must `give` it back.

        A caller that is cancelled meanwhile leaves the queue.
        """
        asker = requester.get()
        if asker != NOBODY:
            self.wanted_at = asyncio.get_running_loop().time()
        workers = self._workers if anywhere else self._workers[:1]
        for worker in workers:
            if not worker.busy:
                worker.busy = True
                self._waiting.served = asker
                return worker
        turn: asyncio.Future[RestartingWorker] = asyncio.get_running_loop().create_future()
        self._waiting.add(asker, (turn, workers))
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove(asker, (turn, workers))
            else:
                self.give(turn.result())
            raise

    def give(self, worker: RestartingWorker) -> None:
        """Take `worker` back, and let the next caller that can use it have it."""
        worker.task = None
        if worker.logged_in and requester.get() != NOBODY:
            self.used_at = asyncio.get_running_loop().time()
        if worker.restart_pending:
            worker.discard()
        waiting = self._waiting.take(lambda one: worker in one[1] and not one[0].cancelled())
        if waiting is None:
            worker.busy = False
            self._cards.given_back()
        else:
            waiting[0].set_result(worker)

    @property
    def uses_pcscd(self) -> bool:
        """Whether a process reaches its tokens by way of pcscd."""
        return any(worker.uses_pcscd for worker in self._workers)

    @property
    def opens_a_card(self) -> bool:
        """Whether a card of pcscd may be being opened: there is something to do, and none is open."""
        if not self.uses_pcscd or self.has_a_card_open:
            return False
        asked_again = asyncio.get_running_loop().time() - self.wanted_at < _ASKED_AGAIN
        return asked_again or any(worker.busy for worker in self._workers)

    @property
    def has_a_card_open(self) -> bool:
        """Whether a worker has read a token and can use it."""
        return any(worker.opened for worker in self._workers)

    async def turn_at_cards(self) -> None:
        """Wait until no other module is to come first, unless a client waits or no card is used here."""
        if self.uses_pcscd:
            await self._cards.come_to(self)

    def removed(self, tokens: Collection[TokenId]) -> None:
        """`tokens` have left: end their sessions, also what is under way."""
        fields = [token.fields for token in tokens]
        for worker in self._workers:
            worker.removed(fields)
        self.restart()

    def restart_if_useless(self) -> None:
        """End idle processes in which no token is logged in."""
        for worker in self._workers:
            worker.restart_if_useless()

    def restart(self) -> None:
        """End the processes, whose sessions are of no further use; busy ones when they are given back."""
        for worker in self._workers:
            if worker.busy:
                worker.restart_pending = True
            else:
                worker.discard()

    def close(self) -> None:
        """End all processes, for good; callers that still wait are refused."""
        self._starter.close()
        for worker in self._workers:
            worker.discard()
