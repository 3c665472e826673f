"""Notices tokens that come and go: slots are scanned slowly all the time, and often after a USB event.

There is no event for a card pulled from a fixed reader, for a restarted pcscd, or for a network HSM. And
after a USB event pcscd may need several seconds, so one scan is not enough.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from replug.token.errors import TokenError
from replug.token.modules.module import Module, Pace

log = logging.getLogger(__name__)

_SLOW = 1.0  # seconds between scans; each costs about a millisecond and no command to a card
_PACES = {Pace.QUICK: 0.25, Pace.USUAL: _SLOW, Pace.SELDOM: 60.0}
_GAP = 5.0  # seconds of the boot clock without a scan
_SLOWEST = 30.0  # seconds, while a module cannot be asked
_PUT_OFF = 3.0  # seconds between scans without an event, if another module is to see a card first
_APART = 0.05  # seconds between scans at least, however many events there are
_AFTER_EVENT = (0.2, 0.3, 0.5, 1.0, 1.5, 2.5)  # seconds between the scans that follow the first one
_AFTER_CHANGE = (0.3, 0.7)  # the same after pcscd has reported a change: it has seen the card already


@dataclass
class _Rest:
    """A module that failed is not scanned for `length` seconds from `since`, a time of the loop's clock."""

    since: float
    length: float


class Watcher:
    """Scans the slots of the modules that `modules` returns, each at its own pace."""

    def __init__(self, modules: Callable[[], list[Module]]) -> None:
        self._modules = modules
        self._scanning: dict[Module, asyncio.Task[None]] = {}
        self._resting: WeakKeyDictionary[Module, _Rest] = WeakKeyDictionary()
        self._last_scan: WeakKeyDictionary[Module, float] = WeakKeyDictionary()
        self._event = asyncio.Event()
        self._follow: tuple[float, ...] = ()
        """The pauses between the scans after the next event."""

    def nudge(self) -> None:
        """A token may have come or gone: scan now, and a few times more. Many calls at once are like one."""
        self._follow = _AFTER_EVENT
        self._event.set()

    def cards_changed(self, left: Mapping[str, bool], arrived: bool) -> None:
        """pcscd reports a change, as `CardReaders` does: end what it makes pointless, and scan now."""
        for module in self._modules():
            module.cards_changed(left, arrived=arrived)
        self._follow = max(self._follow, _AFTER_CHANGE, key=len)
        self._event.set()

    def readers_unplugged(self) -> None:
        """The last USB device that may hold a token has gone."""
        for module in self._modules():
            module.readers_unplugged()
        self.nudge()

    async def run(self) -> None:
        """Watch until cancelled."""
        pauses: list[float] = []
        try:
            while True:
                closely = bool(pauses)
                if await self._nudged_within(pauses.pop(0) if pauses else self._pause()):
                    self._event.clear()
                    closely, pauses = True, max(list(self._follow), pauses, key=len)
                    self._follow = ()
                    for rest in self._resting.values():
                        rest.length = _SLOW
                self._scan_due(closely=closely)
                await asyncio.sleep(_APART)
        finally:
            for task in self._scanning.values():
                task.cancel()

    def _pause(self) -> float:
        return min((_SLOW, *(_PACES[module.pace] for module in self._modules())))

    async def _nudged_within(self, pause: float) -> bool:
        try:
            async with asyncio.timeout(pause):
                return await self._event.wait()
        except TimeoutError:
            return False

    def _scan_due(self, *, closely: bool) -> None:
        now = asyncio.get_running_loop().time()
        # The one that was used last has its turn at a card first.
        for module in sorted(self._modules(), key=lambda module: -module.used_at):
            rest = self._resting.get(module)
            rested = rest is None or now >= rest.since + rest.length
            if not rested or module in self._scanning or module.busy:
                continue
            clock, pace = time.clock_gettime(time.CLOCK_BOOTTIME), _PACES[module.pace]
            since = clock - self._last_scan.get(module, clock - max(pace, _PUT_OFF))
            if not closely and since < _PUT_OFF and self._another_misses_a_card(module):
                continue
            if closely or pace <= _SLOW or since >= pace:
                # After a gap (suspend, a busy module) slots that look unchanged may hold other tokens.
                after_gap = since > max(_GAP, 2 * pace)
                self._last_scan[module] = clock
                task = asyncio.create_task(self._scan(module, closely=closely or after_gap))
                self._scanning[module] = task
                task.add_done_callback(lambda _, module=module: self._scanning.pop(module))  # type: ignore[misc]

    def _another_misses_a_card(self, module: Module) -> bool:
        """Whether one that was used after `module` does, which is then to be the first to see it."""
        return module.uses_pcscd and any(
            other.uses_pcscd and other.used_at > module.used_at and other.pace is Pace.QUICK
            for other in self._modules()
        )

    async def _scan(self, module: Module, *, closely: bool) -> None:
        failures: list[Exception]
        before = module.present_tokens
        try:
            arrived = await module.look(closely=closely)
        except Exception as error:
            failures = [error]
        else:
            # Opening the session now saves time at the first signature.
            read = await asyncio.gather(*(token.read() for token in arrived), return_exceptions=True)
            failures = [error for error in read if isinstance(error, Exception)]
        gone = [token for token in before if not token.present]
        for other in self._modules() if gone else ():
            if other is not module:
                other.tokens_left_elsewhere(gone)
        for failure in failures:
            if isinstance(failure, TokenError):
                log.debug("slot scan failed", extra={"path": module.path, "why": str(failure)})
            else:
                log.error("slot scan failed", exc_info=failure, extra={"path": module.path})
        if failures:
            last = self._resting.get(module)
            length = min(2 * last.length, _SLOWEST) if last else _SLOW
            self._resting[module] = _Rest(asyncio.get_running_loop().time(), length)
        else:
            self._resting.pop(module, None)
