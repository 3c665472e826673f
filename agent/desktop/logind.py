"""Suspend and screen lock, as systemd-logind tells of them (org.freedesktop.login1(5))."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from replug.agent.desktop.bus import BusError, Remote, open_bus, system_bus

if TYPE_CHECKING:
    from replug.agent.desktop.bus_connection import BusConnection, Signal

log = logging.getLogger(__name__)

_NAME = "org.freedesktop.login1"
_SESSION = "org.freedesktop.login1.Session"
_MANAGER = Remote(_NAME, "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
_PROPERTIES = "org.freedesktop.DBus.Properties"
_BUS = "org.freedesktop.DBus"
_SESSIONS = "/org/freedesktop/login1/session"
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds until logind is looked for again

_Job = Callable[[], Awaitable[object]]


class SessionEvents:
    """Calls `on_suspend` before the machine sleeps, `on_resume` after, `on_screen_lock` at a screen lock.

    Sleep is delayed until `on_suspend` has returned, at most by logind's InhibitDelayMaxSec; without
    `on_suspend` it is not delayed. The screen is that of any session of our user: an agent belongs to the
    user and not to one of them. A callback may be called more than once for one event; what it returns or
    raises changes nothing.
    """

    def __init__(
        self,
        on_suspend: Callable[[], object] | None = None,
        on_resume: Callable[[], object] | None = None,
        on_screen_lock: Callable[[], object] | None = None,
        *,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._on_suspend = on_suspend
        self._on_resume = on_resume
        self._on_screen_lock = on_screen_lock
        self._environment = environment
        self._established = False
        self._complained = False

    async def run(self) -> None:
        """Listen until cancelled. While that cannot be, say so once and try again now and then."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._listen()
            except Exception as error:  # a service that answers nonsense must not be the end of it
                if not self._complained:
                    log.warning("no word of screen lock and suspend, so no PIN is forgotten then: %s", error)
                self._complained = True
            if self._established:
                self._established, pause = False, _FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _listen(self) -> None:
        """Follow one logind for as long as there is this one, on one connection; BusError."""
        following = _Following(self._on_suspend, self._on_resume, self._on_screen_lock)
        try:
            async with open_bus(system_bus(self._environment), following.on_signal) as bus:
                await following.begin(bus)
                self._established, self._complained = True, False
                log.info("listening for screen lock and suspend")
                await following.go_on()
        finally:
            following.release()


class _Following:
    """What is known of one logind."""

    def __init__(
        self,
        on_suspend: Callable[[], object] | None,
        on_resume: Callable[[], object] | None,
        on_screen_lock: Callable[[], object] | None,
    ) -> None:
        self._on_suspend = on_suspend
        self._on_resume = on_resume
        self._on_screen_lock = on_screen_lock
        self._owner = ""
        self._asleep = False
        self._lock: int | None = None
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue()
        self._bus: BusConnection

    async def begin(self, bus: BusConnection) -> None:
        """Subscribe, and catch up with what happened before; BusError if there is no logind."""
        self._bus = bus
        bus.lost.add_done_callback(lambda _: self._jobs.put_nowait(lambda: bus.lost))
        await bus.subscribe(sender=_BUS, member="NameOwnerChanged", arg0=_NAME)
        self._owner = await bus.owner(_NAME)
        if self._on_suspend or self._on_resume:
            await bus.subscribe(sender=_NAME, interface=_MANAGER.interface, member="PrepareForSleep")
            if await self._property(_MANAGER, "PreparingForSleep"):
                self._sleep()
            else:
                await self._delay_sleep()
        if self._on_screen_lock:
            await bus.subscribe(sender=_NAME, interface=_SESSION, member="Lock")
            await bus.subscribe(
                sender=_NAME, interface=_PROPERTIES, member="PropertiesChanged", arg0=_SESSION
            )
            await self._look_for_locked_screens()

    async def go_on(self) -> None:
        """Do what signals give to do, until the connection or logind is lost: BusError."""
        while True:
            job = await self._jobs.get()
            await job()

    def release(self) -> None:
        """Let the machine sleep."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def on_signal(self, signal: Signal) -> None:
        """Act on a signal. Anybody on the bus may send us one, so it counts only if logind did."""
        match signal.sender, signal.interface, signal.member, signal.arguments:
            case (_, _, "NameOwnerChanged", (name, _, _)) if signal.sender == _BUS and name == _NAME:
                if self._owner:
                    self._jobs.put_nowait(_logind_is_gone)
            case (self._owner, _MANAGER.interface, "PrepareForSleep", (True,)):
                self._sleep()
            case (self._owner, _MANAGER.interface, "PrepareForSleep", (False,)):
                self._wake()
            case (self._owner, "org.freedesktop.login1.Session", "Lock", ()):
                self._jobs.put_nowait(functools.partial(self._session_locked, signal.path))
            case (self._owner, "org.freedesktop.DBus.Properties", "PropertiesChanged", (_, changed, _)):
                if changed.get("LockedHint") == ("b", True):
                    self._jobs.put_nowait(functools.partial(self._session_locked, signal.path))

    def _sleep(self) -> None:
        # At once, and not behind other jobs: logind does not wait for long.
        self._asleep = True
        _tell(self._on_suspend, "suspend")
        self.release()

    def _wake(self) -> None:
        self._asleep = False
        _tell(self._on_resume, "resume")
        self._jobs.put_nowait(self._delay_sleep)

    async def _delay_sleep(self) -> None:
        """Take the lock that makes logind wait for us (https://systemd.io/INHIBITOR_LOCKS)."""
        if self._on_suspend is None or self._lock is not None or self._asleep:
            return
        why = ("sleep", "replug", "PINs are forgotten before the machine sleeps", "delay")
        try:
            (lock,) = await self._bus.call(_MANAGER, "Inhibit", "ssss", *why)
        except BusError as error:
            log.warning("sleep cannot be delayed until PINs are forgotten: %s", error)
            return
        self._lock = lock.to_raw_fd()
        if self._asleep:
            self.release()

    async def _session_locked(self, path: str) -> None:
        """The session at `path` is locked, which concerns us if it is our user's, or cannot be told."""
        try:
            uid, _ = await self._property(Remote(_NAME, path, _SESSION), "User")
        except BusError as error:
            log.info("whose screen was locked is not known: %s", error)
        else:
            if uid != os.getuid():
                return
        _tell(self._on_screen_lock, "screen lock")

    async def _look_for_locked_screens(self) -> None:
        (sessions,) = await self._bus.call(_MANAGER, "ListSessions")
        for _number, uid, _user, _seat, path in sessions:
            if uid == os.getuid():
                with suppress(BusError):  # a session may end at any time
                    if await self._property(Remote(_NAME, path, _SESSION), "LockedHint"):
                        _tell(self._on_screen_lock, "screen lock")

    async def _property(self, remote: Remote, name: str) -> Any:
        properties = Remote(remote.name, remote.path, _PROPERTIES)
        ((_, value),) = await self._bus.call(properties, "Get", "ss", remote.interface, name)
        return value


async def _logind_is_gone() -> None:
    raise BusError("logind was stopped or restarted")


def _tell(callback: Callable[[], object] | None, event: str) -> None:
    if callback is None:
        return
    log.info("logind tells of %s", event)
    try:
        callback()
    except Exception:
        log.exception("what is to be done at %s failed", event)
