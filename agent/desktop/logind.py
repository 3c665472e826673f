"""Suspend and screen lock, as systemd-logind reports them (org.freedesktop.login1(5))."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from replug.agent.desktop.bus import open_bus, system_bus
from replug.agent.desktop.bus_names import BusError, Remote, Signal

if TYPE_CHECKING:
    from replug.agent.desktop.bus_connection import BusConnection

log = logging.getLogger(__name__)

_NAME = "org.freedesktop.login1"
_SESSION = "org.freedesktop.login1.Session"
_MANAGER = Remote(_NAME, "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
_PROPERTIES = "org.freedesktop.DBus.Properties"
_BUS = "org.freedesktop.DBus"
_SESSIONS = "/org/freedesktop/login1/session"
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds between attempts to reach logind

_Job = Callable[[], Awaitable[object]]


class SessionEvents:
    """Calls `on_suspend` before the machine sleeps, and `on_screen_lock` at a screen lock.

    Sleep is delayed until `on_suspend` has returned, at most by logind's InhibitDelayMaxSec. The screen of
    any session of our user counts: an agent belongs to the user, not to a session. A callback may be called
    more than once for one event; what it returns or raises changes nothing.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        on_suspend: Callable[[], object],
        on_screen_lock: Callable[[], object],
    ) -> None:
        """`environment` says where the system bus is."""
        self._on_suspend = on_suspend
        self._on_screen_lock = on_screen_lock
        self._environment = environment
        self._established = False
        self._complained = False

    async def run(self) -> None:
        """Listen until cancelled. A failure is logged once, and retried at growing intervals."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._listen()
            except Exception as error:  # a service that answers nonsense must not end this task
                if not self._complained:
                    log.warning(
                        "cannot watch for screen lock and suspend; PINs will be kept on those events: %s",
                        error,
                    )
                self._complained = True
            if self._established:
                self._established, pause = False, _FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _listen(self) -> None:
        """Follow one logind process on one connection, until either ends: BusError."""
        following = _Following(self._on_suspend, self._on_screen_lock)
        try:
            bus_of_logind = open_bus(
                system_bus(self._environment), following.on_signal, takes_descriptors=True
            )
            async with bus_of_logind as bus:
                await following.begin(bus)
                self._established, self._complained = True, False
                log.info("listening for screen lock and suspend")
                await following.go_on()
        finally:
            following.release()


class _Following:
    """One logind process, and whether we delay its sleep."""

    def __init__(
        self,
        on_suspend: Callable[[], object],
        on_screen_lock: Callable[[], object],
    ) -> None:
        self._on_suspend = on_suspend
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
        await bus.subscribe(sender=_NAME, interface=_MANAGER.interface, member="PrepareForSleep")
        if await self._property(_MANAGER, "PreparingForSleep"):
            self._sleep()
        else:
            await self._delay_sleep()
        await bus.subscribe(sender=_NAME, interface=_SESSION, member="Lock")
        await bus.subscribe(sender=_NAME, interface=_PROPERTIES, member="PropertiesChanged", arg0=_SESSION)
        await self._find_locked_screens()

    async def go_on(self) -> None:
        """Do the jobs that signals have queued, until the connection or logind is lost: BusError."""
        while True:
            job = await self._jobs.get()
            await job()

    def release(self) -> None:
        """Stop delaying sleep."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def on_signal(self, signal: Signal) -> None:
        """Act on a signal if logind sent it: any program on the bus may send us one."""
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
        # Now, and not behind other jobs: logind does not wait for long.
        self._asleep = True
        _notify(self._on_suspend, "suspend")
        self.release()

    def _wake(self) -> None:
        self._asleep = False
        self._jobs.put_nowait(self._delay_sleep)

    async def _delay_sleep(self) -> None:
        """Take the lock that makes logind wait for us (https://systemd.io/INHIBITOR_LOCKS)."""
        if self._lock is not None or self._asleep:
            return
        request = ("sleep", "replug", "PINs are forgotten before the machine sleeps", "delay")
        try:
            (lock,) = await self._bus.call(_MANAGER, "Inhibit", "ssss", *request)
        except BusError as error:
            log.warning("cannot delay sleep until PINs are forgotten: %s", error)
            return
        self._lock = lock.to_raw_fd()
        if self._asleep:
            self.release()

    async def _session_locked(self, path: str) -> None:
        """The session at `path` was locked. It counts if it is our user's, or if that cannot be found out."""
        try:
            uid, _ = await self._property(Remote(_NAME, path, _SESSION), "User")
        except BusError as error:
            log.info("cannot find out whose screen was locked: %s", error)
        else:
            if uid != os.getuid():
                return
        _notify(self._on_screen_lock, "screen lock")

    async def _find_locked_screens(self) -> None:
        (sessions,) = await self._bus.call(_MANAGER, "ListSessions")
        for _number, uid, _user, _seat, path in sessions:
            if uid == os.getuid():
                with suppress(BusError):  # a session may end at any time
                    if await self._property(Remote(_NAME, path, _SESSION), "LockedHint"):
                        _notify(self._on_screen_lock, "screen lock")

    async def _property(self, remote: Remote, name: str) -> Any:
        properties = Remote(remote.name, remote.path, _PROPERTIES)
        ((_, value),) = await self._bus.call(properties, "Get", "ss", remote.interface, name)
        return value


async def _logind_is_gone() -> None:
    raise BusError("logind was stopped or restarted")


def _notify(callback: Callable[[], object], event: str) -> None:
    log.info("logind reports %s", event)
    try:
        callback()
    except Exception:
        log.exception("handler for %s failed", event)
