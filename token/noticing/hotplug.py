"""USB events from udev: a hint that a token may have arrived or left. The slots decide."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any

from replug.token.offload import Share, in_daemon_thread

log = logging.getLogger(__name__)

_UDEV = "/run/udev/control"
_SMART_CARD_CLASS = ":0b"  # USB interface class 0x0b in ID_USB_INTERFACES
_EVENTS_PER_TURN = 64  # then the loop's other work has its turn
_AFTER_LOSS = 1.0  # seconds; the scans that follow a loss go on for longer
_WITHOUT_UDEV = 60.0  # seconds between attempts


class UsbHotplug:
    """Calls `changed` when a USB device that may hold a token appears or disappears.

    unbind and remove events have the device's path, but neither vendor nor serial nor ID_SMARTCARD_READER, so
    devices are recognised by their path.
    """

    def __init__(self, changed: Callable[[], None], all_gone: Callable[[], None]) -> None:
        """`all_gone` is called instead of `changed` when the last device that may hold a token is removed."""
        self._changed = changed
        self._all_gone = all_gone
        self._readers: set[str] = set()

    async def run(self) -> None:
        """Listen until cancelled. If udev cannot be reached, log that once; slots are polled in any case."""
        said = False
        while True:
            try:
                # In a thread: pyudev is slow to import, and runs a program to find libudev.
                monitor, self._readers = await in_daemon_thread(Share.LIBRARIES, _open_monitor)
            except Exception as error:  # pyudev has an exception class for every kind of errno
                if not said:
                    log.info("cannot watch USB events; tokens are noticed a little later: %s", error)
                said = True
                await asyncio.sleep(_WITHOUT_UDEV)
            else:
                said = False
                await self._listen(monitor)
                await asyncio.sleep(_AFTER_LOSS)

    async def _listen(self, monitor: Any) -> None:
        """Pass on what `monitor` receives, until it fails."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(monitor.fileno(), readable.set)
        try:
            while True:
                await readable.wait()
                readable.clear()
                self._receive(monitor)
        except Exception as error:
            # The kernel dropped events (ENOBUFS), and this monitor will never recover from that.
            log.info("USB events were lost: %s", error)
            self._changed()
        finally:
            loop.remove_reader(monitor.fileno())

    def _receive(self, monitor: Any) -> None:
        concerned = False
        for _ in range(_EVENTS_PER_TURN):
            device = monitor.poll(timeout=0)
            if device is None:
                break
            concerned |= self._concerns(device)
        if concerned:
            (self._changed if self._readers else self._all_gone)()

    def _concerns(self, device: Any) -> bool:
        path = device.device_path
        if device.action in ("remove", "unbind"):
            known = path in self._readers
            if device.action == "remove":
                self._readers.discard(path)
            return known
        if _may_hold_a_token(device.properties):
            self._readers.add(path)
            return True
        return False


def _open_monitor() -> tuple[Any, set[str]]:
    """A listening monitor, and the paths of the devices that were present before."""
    if not os.path.exists(_UDEV):
        # A monitor could be created but would receive nothing.
        raise FileNotFoundError("udev is not running here (a container?)")
    import pyudev

    context = pyudev.Context()
    monitor = pyudev.Monitor.from_netlink(context, source="udev")
    monitor.filter_by("usb", "usb_device")
    monitor.start()
    devices = context.list_devices(subsystem="usb", DEVTYPE="usb_device")
    return monitor, {device.device_path for device in devices if _may_hold_a_token(device.properties)}


def _may_hold_a_token(properties: Any) -> bool:
    if properties.get("ID_SMARTCARD_READER") == "1":
        return True
    interfaces = properties.get("ID_USB_INTERFACES")
    # A device whose interfaces udev does not report may be anything.
    return interfaces is None or _SMART_CARD_CLASS in interfaces
