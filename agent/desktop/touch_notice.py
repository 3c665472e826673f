"""A desktop notification while a signature is slow: the token may be waiting to be touched.

Only the token knows whether it is, so the text says "may" (Desktop Notifications Specification).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from replug.agent.desktop.bus import open_bus, session_bus
from replug.agent.desktop.bus_names import BusError, Remote
from replug.token.prompts.request import Asker
from replug.token.prompts.shown import shown

if TYPE_CHECKING:
    from replug.agent.desktop.bus_connection import BusConnection

log = logging.getLogger(__name__)

_NOTIFICATIONS = Remote(
    "org.freedesktop.Notifications", "/org/freedesktop/Notifications", "org.freedesktop.Notifications"
)
_MOST_AT_ONCE = 4  # further notices wait until one is withdrawn
_PATIENCE = 30.0  # seconds; the daemon may have to be started first
_EXPIRY = 120_000  # milliseconds, in case the agent is killed before it withdraws the notice
_ICON = "dialog-password"  # Icon Naming Specification
_MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_HINTS = {"urgency": ("y", 1), "category": ("s", "device"), "transient": ("b", True)}


class TouchNotices:
    """Shows a notification for each signature that takes longer than a moment, for as long as it does."""

    def __init__(self, environment: Mapping[str, str], moment: float | None) -> None:
        """`environment` says where the session's bus is; `moment` is in seconds, 0 or None for never."""
        self._environment = environment
        self.moment = moment
        """Seconds a signature takes before there is a notice; a reload of the configuration changes it."""
        self._room = asyncio.Semaphore(_MOST_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._complained = False
        self.standing = 0
        """How many notices the desktop has confirmed to show."""

    def waiting(self, token: str, key: str, asker: Asker) -> contextlib.AbstractContextManager[object]:
        """A context to wait for `token`, such as `token "work"`, in.

        `key`, which may be empty, and `asker` help the user recognise the request. Entering and leaving it
        never blocks or raises; until the moment has passed it costs one timer.
        """
        return _Wait(self, self.moment, token, key, asker) if self.moment else contextlib.nullcontext()

    def notify(self, wait: _Wait) -> asyncio.Event:
        """Show a notice for `wait` in the background; it is withdrawn when the event is set."""
        over = asyncio.Event()
        task = asyncio.create_task(self._notify_until(over, wait))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return over

    async def _notify_until(self, over: asyncio.Event, wait: _Wait) -> None:
        async with self._room:
            if over.is_set():
                return
            try:
                # One connection for each notice: nothing goes stale when the bus or the desktop is restarted.
                async with open_bus(session_bus(self._environment)) as bus:
                    await self._show_until(over, wait, bus)
            except BusError as error:
                if not self._complained:
                    log.info("cannot show a touch notification: %s", error)
                self._complained = True
            except Exception:
                log.exception("touch notification failed")

    async def _show_until(self, over: asyncio.Event, wait: _Wait, bus: BusConnection) -> None:
        body = wait.body
        escaped = body.translate(_MARKUP)
        if escaped != body and await _reads_markup(bus):
            body = escaped
        if over.is_set():
            return
        shown: tuple[Any, ...] = ("replug", 0, _ICON, wait.summary, body, [], _HINTS, _EXPIRY)
        (number,) = await bus.call(_NOTIFICATIONS, "Notify", "susssasa{sv}i", *shown, patience=_PATIENCE)
        self._complained = False
        self.standing += 1
        try:
            await over.wait()
        finally:
            self.standing -= 1
            # Without waiting for a reply: the agent may be ending.
            bus.send(_NOTIFICATIONS, "CloseNotification", "u", number)


@dataclass
class _Wait:
    _notices: TouchNotices
    _moment: float
    _token: str
    _key: str
    _asker: Asker
    _over: asyncio.Event | None = None
    _timer: asyncio.TimerHandle | None = None

    @property
    def summary(self) -> str:
        return f"Touch {shown(self._token)} (or it may be busy)"

    @property
    def body(self) -> str:
        lines = ["A signature is waiting for it.", *self._asker.purpose]
        if self._key:
            lines.append(f"Key: {shown(self._key)}")
        if self._asker.program:
            lines.append(f"For: {shown(self._asker.program)}")
        return "\n".join(lines)

    def __enter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._moment, self._notify)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._timer is not None
        self._timer.cancel()
        if self._over is not None:
            self._over.set()

    def _notify(self) -> None:
        self._over = self._notices.notify(self)


async def _reads_markup(bus: BusConnection) -> bool:
    """Whether the daemon reads `<` and `&` as markup; assumed if it does not say."""
    try:
        (capabilities,) = await bus.call(_NOTIFICATIONS, "GetCapabilities", patience=_PATIENCE)
    except BusError:
        return True
    return "body-markup" in capabilities
