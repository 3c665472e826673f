"""Notices while a signature waits: for its token to be plugged in, or perhaps to be touched.

They are desktop notifications. That a token has to be plugged in is also said on the terminal of the program.

Only the token knows whether it waits for a touch, so that text says "may"; of a FIDO key it is known. See the
Desktop Notifications Specification.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from replug.agent.desktop.alarms import Alarms
from replug.agent.desktop.bus import open_bus, session_bus
from replug.agent.desktop.bus_names import BusError, Remote
from replug.token.prompts.announcement import announce
from replug.token.prompts.request import Asker
from replug.token.prompts.shown import shown
from replug.token.prompts.terminals import Terminals
from replug.token.requester import requester
from replug.token.turns import FairSemaphore

if TYPE_CHECKING:
    from replug.agent.desktop.bus_connection import BusConnection

log = logging.getLogger(__name__)

_NOTIFICATIONS = Remote(
    "org.freedesktop.Notifications", "/org/freedesktop/Notifications", "org.freedesktop.Notifications"
)
_MOST_AT_ONCE = 4  # of more that wait, programs have turns, and then their processes
_TURN = 5.0  # seconds that a notice stays before it is withdrawn for another
_PATIENCE = 30.0  # seconds; the daemon may have to be started first
_EXPIRY = 120_000  # milliseconds, in case the agent is killed before it withdraws the notice
_ICON = "dialog-password"  # Icon Naming Specification
_MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_HINTS = {"urgency": ("y", 1), "category": ("s", "device"), "transient": ("b", True)}


class TouchNotices:
    """Shows a notification for each signature that waits, for as long as it does; of many, some at a time."""

    def __init__(
        self, environment: Mapping[str, str], moment: Callable[[], float | None], terminals: Terminals
    ) -> None:
        """`environment` says where the session's bus is; `terminals` uses terminals for this process.

        `moment` returns the seconds that a signature takes before there is a notice; 0 or None is never.
        """
        self._environment = environment
        self._moment = moment
        self._terminals = terminals
        self._room = FairSemaphore(_MOST_AT_ONCE)
        self._waits = Alarms()
        self._tasks: set[asyncio.Task[None]] = set()
        self._complained = False
        self.standing = 0
        """How many notices the desktop has confirmed to show."""

    def waiting(self, token: str, key: str, asker: Asker) -> AbstractContextManager[object]:
        """A context to wait for `token`, such as `token "work"`, in.

        `key`, which may be empty, and `asker` help the user recognise the request. Entering and leaving it
        never blocks or raises, and costs little until the moment has passed.
        """
        moment = self._moment()
        if not moment or requester.get().is_guest:
            return nullcontext()
        return _Wait(self._waits, moment, partial(self._touch, token, key, asker))

    @contextmanager
    def touch_security_key(self, key: str, asker: Asker) -> Iterator[None]:
        """A context to wait for a FIDO authenticator in, which wants a touch for certain: told at once.

        Unless no notices are wanted.
        """
        over = asyncio.Event()
        if self._moment():
            self.notify(over, "Touch the security key", _body(key, asker))
        try:
            yield
        finally:
            over.set()

    def _touch(self, token: str, key: str, asker: Asker) -> asyncio.Event:
        """Show the notice, whose words are made only now, until the event."""
        over = asyncio.Event()
        self.notify(over, f"Touch {shown(token)} (or it may be busy)", _body(key, asker))
        return over

    @contextmanager
    def plug_in(self, tokens: Sequence[str], key: str, asker: Asker) -> Iterator[None]:
        """A context to wait for one of `tokens` to be plugged in: whoever set that wait is told at once."""
        if requester.get().is_guest:  # on neither their desktop nor their terminal
            yield
            return
        over, wanted = asyncio.Event(), f"lug in {' or '.join(map(shown, tokens))}"
        self.notify(over, f"P{wanted}", _body(key, asker))
        self._begin(announce(f"replug-agent: p{wanted} to go on", asker.pid, self._terminals))
        try:
            yield
        finally:
            over.set()

    def notify(self, over: asyncio.Event, summary: str, body: str) -> None:
        """Show a notice in the background; it is withdrawn when the event `over` is set."""
        self._begin(self._notify_until(over, summary, body))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notify_until(self, over: asyncio.Event, summary: str, body: str) -> None:
        gave_way = True
        while gave_way and not over.is_set():
            gave_way = False
            await self._room.acquire()
            try:
                # One connection for each notice: nothing goes stale when the bus or the desktop is restarted.
                async with open_bus(session_bus(self._environment)) as bus:
                    text = await _readable(body, bus)
                    if not over.is_set():
                        async with self._shown(bus, summary, text):
                            gave_way = await self._turn_ends(over)
            except BusError as error:
                if not self._complained:
                    log.info("cannot show a notification: %s", error)
                self._complained = True
            except Exception:
                log.exception("notification failed")
            finally:
                if not gave_way:
                    self._room.release()

    async def _turn_ends(self, over: asyncio.Event) -> bool:
        """Wait until it is `over`, or for its turn to end and be another's; whether it is another's now."""
        while not over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_TURN):
                    await over.wait()
            if not over.is_set() and self._room.give_way():
                return True
        return False

    @asynccontextmanager
    async def _shown(self, bus: BusConnection, summary: str, body: str) -> AsyncIterator[None]:
        notice: tuple[Any, ...] = ("replug", 0, _ICON, summary, body, [], _HINTS, _EXPIRY)
        (number,) = await bus.call(_NOTIFICATIONS, "Notify", "susssasa{sv}i", *notice, patience=_PATIENCE)
        self._complained = False
        self.standing += 1
        try:
            yield
        finally:
            self.standing -= 1
            # Without waiting for a reply: the agent may be ending.
            bus.send(_NOTIFICATIONS, "CloseNotification", "u", number)


class _Wait:
    """The context of one signature that may take long."""

    def __init__(self, alarms: Alarms, moment: float, notify: Callable[[], asyncio.Event]) -> None:
        self._alarms = alarms
        self._moment = moment
        self._notify = notify
        self._over: asyncio.Event | None = None

    def __enter__(self) -> None:
        self._alarms.set(self._takes_long, self._moment)

    def __exit__(self, *_: object) -> None:
        self._alarms.unset(self._takes_long)
        if self._over is not None:
            self._over.set()

    def _takes_long(self) -> None:
        self._over = self._notify()


def _body(key: str, asker: Asker) -> str:
    lines = ["A signature is waiting for it.", *asker.purpose]
    if key:
        lines.append(f"Key: {shown(key)}")
    if asker.program:
        lines.append(f"For: {shown(asker.program)}")
    return "\n".join(lines)


async def _readable(body: str, bus: BusConnection) -> str:
    """The body as the daemon is to get it: as markup, unless it says that it knows none."""
    escaped = body.translate(_MARKUP)
    if escaped == body:
        return body
    try:
        (capabilities,) = await bus.call(_NOTIFICATIONS, "GetCapabilities", patience=_PATIENCE)
    except BusError:
        return escaped
    return escaped if "body-markup" in capabilities else body
