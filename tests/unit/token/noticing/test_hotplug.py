"""Which USB events are passed on, and what happens when there are none to be had."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doubles.stand_ins import run, settle

from replug.token.noticing import hotplug
from replug.token.noticing.hotplug import UsbHotplug

READER = {"ID_SMARTCARD_READER": "1", "ID_USB_INTERFACES": ":ff0000:"}  # by a rule, not by its interface
COMPOSITE = {"ID_USB_INTERFACES": ":030101:030000:0b0000:"}
MOUSE = {"ID_USB_INTERFACES": ":030102:"}
PORT = "/devices/pci0000:00/usb1/1-1"
OTHER_PORT = "/devices/pci0000:00/usb1/1-2"


@dataclass(frozen=True)
class Event:
    """What pyudev calls a device."""

    action: str
    device_path: str = PORT
    properties: dict[str, str] = field(default_factory=dict)


class StandInMonitor:
    """Gives out the events that were put in, in their order; an exception among them is raised, once."""

    def __init__(self) -> None:
        self.events: list[Event | Exception] = []
        self.polls = 0
        self._read, self._write = os.pipe()
        os.write(self._write, b"!")  # there is always something to read, as in a storm

    def fileno(self) -> int:
        return self._read

    def poll(self, timeout: float) -> Event | None:
        assert timeout == 0
        self.polls += 1
        if not self.events:
            return None
        event = self.events.pop(0)
        if isinstance(event, Exception):
            raise event
        return event

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Udev:
    """Stands in for opening monitors: counts how often, and fails while it has a failure."""

    def __init__(self) -> None:
        self.monitors: list[StandInMonitor] = []
        self.attempts = 0
        self.failure: Exception | None = None
        self.readers: set[str] = set()
        self.changes = 0
        self.times_all_gone = 0

    def open_monitor(self) -> tuple[StandInMonitor, set[str]]:
        self.attempts += 1
        if self.failure is not None:
            raise self.failure
        self.monitors.append(StandInMonitor())
        return self.monitors[-1], set(self.readers)

    def changed(self) -> None:
        self.changes += 1

    def all_gone(self) -> None:
        self.changes += 1
        self.times_all_gone += 1

    async def opened(self, monitors: int) -> None:
        """Wait until this many monitors have been opened, and the last one is listened to."""
        await until(lambda: len(self.monitors) == monitors and self.monitors[-1].polls)

    async def send(self, *events: Event | Exception) -> int:
        """The number of changes that these events were to the monitor that is open."""
        before = self.changes
        monitor = self.monitors[-1]
        monitor.events.extend(events)
        await until(lambda: not monitor.events)
        await settle()
        return self.changes - before


@pytest.fixture
def udev(monkeypatch: pytest.MonkeyPatch) -> Any:
    udev = Udev()
    monkeypatch.setattr(hotplug, "_open_monitor", udev.open_monitor)
    monkeypatch.setattr(hotplug, "_AFTER_LOSS", 0)
    monkeypatch.setattr(hotplug, "_WITHOUT_UDEV", 0)
    yield udev
    for monitor in udev.monitors:
        monitor.close()


@asynccontextmanager
async def listening(udev: Udev) -> AsyncIterator[None]:
    """It listens, or tries to while `udev` has a failure, and does so still in the end."""
    task = asyncio.create_task(UsbHotplug(udev.changed, udev.all_gone).run())
    if udev.failure is None:
        await udev.opened(len(udev.monitors) + 1)
    yield
    assert not task.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - nobody announces it
        await asyncio.sleep(0)


@pytest.mark.parametrize("action", ["add", "bind", "change"])
@pytest.mark.parametrize("properties", [READER, COMPOSITE, {}], ids=["reader", "composite", "unknown"])
def test_what_may_hold_a_token_appears(udev: Udev, action: str, properties: dict[str, str]) -> None:
    async def main() -> None:
        async with listening(udev):
            assert await udev.send(Event(action, properties=properties)) == 1

    run(main())


def test_when_the_last_device_that_may_hold_a_token_is_removed_all_are_gone(udev: Udev) -> None:
    async def main() -> None:
        udev.readers = {PORT, OTHER_PORT}
        async with listening(udev):
            await udev.send(Event("unbind"), Event("remove"))
            assert udev.times_all_gone == 0
            await udev.send(Event("unbind", OTHER_PORT), Event("remove", OTHER_PORT))
            assert udev.times_all_gone == 1

    run(main())


@pytest.mark.parametrize("action", ["add", "bind", "change", "unbind", "remove"])
def test_what_holds_no_token_is_none_of_our_business(udev: Udev, action: str) -> None:
    async def main() -> None:
        async with listening(udev):
            assert await udev.send(Event("add", properties=MOUSE), Event(action, properties=MOUSE)) == 0

    run(main())


@pytest.mark.parametrize("action", ["unbind", "remove"])
def test_a_removal_is_known_by_its_path(udev: Udev, action: str) -> None:
    async def main() -> None:
        async with listening(udev):
            await udev.send(Event("add", properties=READER))
            assert await udev.send(Event(action, OTHER_PORT)) == 0
            assert await udev.send(Event(action)) == 1

    run(main())


def test_the_removal_of_what_was_there_before_us_is_known_too(udev: Udev) -> None:
    async def main() -> None:
        udev.readers.add(PORT)
        async with listening(udev):
            assert await udev.send(Event("unbind")) == 1
            assert await udev.send(Event("remove")) == 1

    run(main())


def test_a_port_that_had_a_reader_may_get_a_mouse(udev: Udev) -> None:
    async def main() -> None:
        async with listening(udev):
            await udev.send(Event("add", properties=READER), Event("unbind"), Event("remove"))
            assert await udev.send(Event("add", properties=MOUSE), Event("unbind"), Event("remove")) == 0

    run(main())


def test_what_comes_together_with_a_reader_does_not_hide_it(udev: Udev) -> None:
    async def main() -> None:
        async with listening(udev):
            mouse = Event("add", OTHER_PORT, MOUSE)
            assert await udev.send(mouse, Event("add", properties=READER), mouse) == 1

    run(main())


def test_many_events_at_a_time_are_few_changes_and_leave_time_for_others(udev: Udev) -> None:
    async def main() -> None:
        async with listening(udev):
            monitor = udev.monitors[-1]
            monitor.events += [Event("change", properties=READER)] * 1000
            longest = 0
            while monitor.events:
                before = len(monitor.events)
                await asyncio.sleep(0)
                longest = max(longest, before - len(monitor.events))
            await settle()
            assert longest == 64
            assert udev.changes == 16

    run(main())


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOBUFS, "No buffer space available"), ValueError("Invalid argument")]
)
def test_when_events_are_lost_slots_are_looked_at_and_a_new_monitor_listens(
    udev: Udev, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with listening(udev):
            assert await udev.send(error) == 1
            await udev.opened(2)
            assert await udev.send(Event("add", properties=READER)) == 1

            assert not asyncio.get_running_loop().remove_reader(udev.monitors[0].fileno()), "still watched"

    with caplog.at_level(logging.INFO, "replug"):
        run(main())
    assert said(caplog) == [f"USB events were lost: {error}"]


def test_after_a_loss_the_devices_are_those_of_then(udev: Udev) -> None:
    async def main() -> None:
        async with listening(udev):
            await udev.send(Event("add", properties=READER))
            udev.readers.add(OTHER_PORT)
            await udev.send(OSError(errno.EIO, "Input/output error"))
            await udev.opened(2)
            assert await udev.send(Event("remove")) == 0
            assert await udev.send(Event("remove", OTHER_PORT)) == 1

    run(main())


@pytest.mark.parametrize(
    "failure",
    [FileNotFoundError("udev is not running"), ImportError("No library named udev"), MemoryError("-")],
)
def test_without_udev_it_says_so_once_and_tries_again(
    udev: Udev, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        udev.failure = failure
        async with listening(udev):
            await until(lambda: udev.attempts >= 5)
            assert udev.changes == 0

            udev.failure = None
            await udev.opened(1)
            assert await udev.send(Event("add", properties=READER)) == 1

    with caplog.at_level(logging.INFO, "replug"):
        run(main())
    assert said(caplog) == [f"cannot watch USB events; tokens are noticed a little later: {failure}"]


def test_a_monitor_that_cannot_be_made_anew_is_tried_again(
    udev: Udev, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        udev.failure = FileNotFoundError("not yet")
        async with listening(udev):
            await until(lambda: udev.attempts)
            udev.failure = None
            await udev.opened(1)

            udev.failure = OSError(errno.EMFILE, "Too many open files")
            attempts = udev.attempts
            assert await udev.send(OSError(errno.ENOBUFS, "No buffer space available")) == 1
            await until(lambda: udev.attempts >= attempts + 5)

            udev.failure = None
            await udev.opened(2)
            assert await udev.send(Event("add", properties=READER)) == 1

    with caplog.at_level(logging.INFO, "replug"):
        run(main())
    assert said(caplog) == [
        "cannot watch USB events; tokens are noticed a little later: not yet",
        "USB events were lost: [Errno 105] No buffer space available",
        "cannot watch USB events; tokens are noticed a little later: [Errno 24] Too many open files",
    ]


def test_between_attempts_there_is_time(udev: Udev, monkeypatch: pytest.MonkeyPatch) -> None:
    """A monitor that always fails, and udev that is not there, must not keep the agent busy."""

    async def main() -> None:
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            await asyncio.Event().wait()

        monkeypatch.undo()
        monkeypatch.setattr(hotplug, "_open_monitor", udev.open_monitor)
        monkeypatch.setattr(hotplug, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": sleep}))
        async with listening(udev):
            await udev.send(OSError(errno.EIO, "Input/output error"))
        udev.failure = FileNotFoundError()
        async with listening(udev):
            await until(lambda: len(slept) == 2)
        assert slept == [1, 60]

    run(main())


def test_where_udev_does_not_run_no_monitor_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be made, and silently receive nothing."""
    monkeypatch.setattr(hotplug, "_UDEV", str(tmp_path / "control"))
    with pytest.raises(FileNotFoundError):
        hotplug._open_monitor()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("replug")]
