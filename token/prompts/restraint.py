"""Holds back the questions of a program whose last ones were declined: nobody is to be worn down by them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from replug.token.errors import DeclinedError
from replug.token.pins.pin import Pin
from replug.token.prompts.request import AnyRequest, ConfirmRequest, Origin, PinRequest, Prompter

_FREE = 1  # a mistake, or the program's own second try, has no consequence
_FIRST_PAUSE, _LONGEST_PAUSE = 1, 60  # seconds; each is twice the one before
_MOST_DOUBLINGS = 10
_FORGIVEN_AFTER = 300.0  # seconds after the end of the pause


@dataclass(frozen=True)
class _Declined:
    """Questions of one origin that were declined, one after the other."""

    times: int
    last: float
    """Seconds of the boot clock."""

    @property
    def pause(self) -> int:
        """Seconds without a question."""
        if self.times <= _FREE:
            return 0
        return min(_LONGEST_PAUSE, _FIRST_PAUSE << min(self.times - _FREE - 1, _MOST_DOUBLINGS))


class Restraint:
    """What is held back: an origin whose questions are declined waits ever longer for the next.

    What counts is No, a cancelled PIN prompt, no answer in time, and a client that withdraws its question.
    An answer ends it. `clock` is the boot clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._declined: dict[Origin, _Declined] = {}

    async def ask(self, prompter: Prompter, request: PinRequest) -> Pin:
        """The PIN, by way of `prompter`; HeldBackError."""
        with self._restrained(request, request.is_moot):
            pin = await prompter.ask(request)
        self._declined.pop(request.asker.origin, None)
        return pin

    async def confirm(self, prompter: Prompter, request: ConfirmRequest) -> bool:
        """The answer, by way of `prompter`; HeldBackError."""
        with self._restrained(request, lambda: False):
            agreed = await prompter.confirm(request)
        if agreed:
            self._declined.pop(request.asker.origin, None)
        else:
            self._count(request.asker.origin)
        return agreed

    @contextmanager
    def _restrained(self, request: AnyRequest, is_moot: Callable[[], bool]) -> Iterator[None]:
        origin = request.asker.origin
        declined = self._declined.get(origin)
        if declined is not None and self._clock() < declined.last + declined.pause:
            raise request.held_back(declined.pause)
        try:
            yield
        except (DeclinedError, asyncio.CancelledError):
            if not is_moot():
                self._count(origin)
            raise

    def _count(self, origin: Origin) -> None:
        now = self._clock()
        self._declined = {
            known: declined
            for known, declined in self._declined.items()
            if now < declined.last + declined.pause + _FORGIVEN_AFTER
        }
        before = self._declined.get(origin)
        self._declined[origin] = _Declined(before.times + 1 if before else 1, now)
