"""udev, as programs see it: events in libudev's format on a netlink socket, in namespaces of a test's own.

Nothing of this machine's devices is seen there, and its programs get none of the events.
"""

from __future__ import annotations

import os
import shlex
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rigs.home import Home
from rigs.terminal import eventually

_INSIDE = Path(__file__).with_name("udev_inside.py")
_GROUP = 2  # of NETLINK_KOBJECT_UEVENT: what udev sends after its rules (libudev's MONITOR_GROUP_UDEV)
_MAGIC = 0xFEEDCAFE

Properties = Mapping[str, str]


class Udev:
    """Namespaces in which udev seems to run, or not; `program` is `agent` started inside.

    `enter` is how root gets in.
    """

    def __init__(self, home: Home, agent: Path, *, running: bool = True) -> None:
        ordinary = [] if os.geteuid() == 0 else ["--map-root-user"]
        rig, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--net", *ordinary, "--", sys.executable, "-I", _INSIDE,
                 str(theirs.fileno()), *([] if running else ["without-udev"])],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
        self._rig = rig
        _, descriptors, _, _ = socket.recv_fds(rig, 1, 1)
        assert descriptors, (
            "no namespaces; those take root, or user namespaces for everybody (with sysctl:"
            " kernel.apparmor_restrict_unprivileged_userns=0, kernel.unprivileged_userns_clone=1):"
            f" {self._process.communicate()[1].decode()}"
        )
        self._netlink = socket.socket(fileno=descriptors[0])
        self._sequence = 1000
        self.enter = ("nsenter", "--target", str(self._process.pid), "--mount", "--net")
        enter = list(self.enter)
        enter += ["--user", "--preserve-credentials"] if ordinary else []
        # An ordinary user cannot have a larger buffer for events than all have.
        enter += ["--", "setpriv", "--bounding-set", "-net_admin", "--"]
        self.program = home.write(
            "agent-inside", f'#!/bin/sh\nexec {shlex.join(enter)} {agent} "$@"\n', 0o700
        )

    def send(self, *events: Properties) -> None:
        """Sends one message for each event, as fast as possible; a listener that is too slow loses some."""
        for event in events:
            self._sequence += 1
            self.send_raw(message(event | {"SEQNUM": str(self._sequence)}))

    def send_raw(self, data: bytes) -> None:
        """Sends any bytes to those who listen to udev."""
        self._netlink.sendto(data, (0, _GROUP))

    def listener(self) -> Listener:
        """The one socket that listens to udev, as soon as there is one."""
        found: list[Listener] = []

        def is_alone() -> bool:
            found[:] = self.listeners()
            return len(found) == 1

        eventually(is_alone, "one socket listens to udev")
        return found[0]

    def listeners(self) -> list[Listener]:
        """All sockets that listen to udev."""
        lines = Path(f"/proc/{self._process.pid}/net/netlink").read_text().splitlines()[1:]
        sockets = [line.split() for line in lines]
        return [
            Listener(int(fields[9]), int(fields[4]), int(fields[8]))
            for fields in sockets
            if (fields[1], int(fields[3], 16)) == ("15", _GROUP)
        ]

    def close(self) -> None:
        """Lets go of the namespaces; they end with the last program in them."""
        self._netlink.close()
        self._rig.close()
        self._process.communicate()


@dataclass(frozen=True)
class Listener:
    """A socket: its number, the bytes that wait in it, and how many messages it has lost."""

    inode: int
    waiting: int
    lost: int


@dataclass(frozen=True)
class UsbDevice:
    """A device at a USB port; `details` is what udev says of it, but not any more when it goes."""

    port: str
    product: str
    details: Properties

    def event(self, action: str) -> Properties:
        """What udev tells: add and bind when the device appears, unbind and remove when it goes."""
        there = action in ("add", "bind", "change")
        return {
            "ACTION": action,
            "DEVPATH": f"/devices/platform/dummy_hcd.0/usb2/{self.port}",
            "SUBSYSTEM": "usb",
            "DEVNAME": "/dev/bus/usb/002/005",
            "DEVTYPE": "usb_device",
            **({"DRIVER": "usb"} if action == "bind" else {}),
            "PRODUCT": self.product,
            "TYPE": "0/0/0",
            "BUSNUM": "002",
            "DEVNUM": "005",
            "USEC_INITIALIZED": "321826574",
            **(self.details if there else {}),
            "ID_PATH": f"platform-dummy_hcd.0-usb-0:{self.port}",
            "MAJOR": "189",
            "MINOR": "132",
            "TAGS": ":security-device:systemd:seat:uaccess:",
            **({"CURRENT_TAGS": ":security-device:systemd:seat:uaccess:"} if there else {}),
        }


YUBIKEY = UsbDevice(
    "2-1",
    "1050/407/543",
    {
        "ID_BUS": "usb",
        "ID_MODEL": "YubiKey_OTP+FIDO+CCID",
        "ID_MODEL_ENC": "YubiKey\\x20OTP+FIDO+CCID",
        "ID_MODEL_ID": "0407",
        "ID_SERIAL": "Yubico_YubiKey_OTP+FIDO+CCID_0012345678",
        "ID_SERIAL_SHORT": "0012345678",
        "ID_VENDOR": "Yubico",
        "ID_VENDOR_ID": "1050",
        "ID_USB_INTERFACES": ":0b0000:",
        "ID_VENDOR_FROM_DATABASE": "Yubico.com",
        "ID_SMARTCARD_READER": "1",
        "SYSTEMD_USER_WANTS": "smartcard.target",
    },
)
MOUSE = UsbDevice(
    "2-2",
    "46d/c077/7200",
    {
        "ID_BUS": "usb",
        "ID_MODEL": "USB_Optical_Mouse",
        "ID_VENDOR_ID": "046d",
        "ID_USB_INTERFACES": ":030102:",
    },
)


def message(properties: Properties, *, magic: int = _MAGIC, subsystem: str | None = None) -> bytes:
    """What libudev receives for an event (systemd, src/libsystemd/sd-device/device-monitor.c).

    The header has hashes by which the kernel filters: of the subsystem (or of another, if given), the
    device's type, and its tags.
    """
    body = b"".join(f"{name}={value}".encode() + b"\0" for name, value in properties.items())
    bloom = 0
    for tag in filter(None, properties.get("TAGS", "").split(":")):
        bloom |= _bloom(tag)
    return (
        struct.pack("=8s4sIII", b"libudev", struct.pack(">I", magic), 40, 40, len(body))
        + struct.pack(
            ">IIQ",
            murmur2(subsystem or properties["SUBSYSTEM"]),
            murmur2(properties["DEVTYPE"]),
            bloom,
        )
        + body
    )


def murmur2(text: str) -> int:
    """MurmurHash2 with seed 0, as libudev hashes names."""
    data, multiplier = text.encode(), 0x5BD1E995
    value = len(data)
    whole = len(data) // 4 * 4
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        word = word * multiplier & 0xFFFFFFFF
        word ^= word >> 24
        value = value * multiplier & 0xFFFFFFFF
        value ^= word * multiplier & 0xFFFFFFFF
    if tail := data[whole:]:
        value ^= int.from_bytes(tail, "little")
        value = value * multiplier & 0xFFFFFFFF
    value ^= value >> 13
    value = value * multiplier & 0xFFFFFFFF
    return value ^ value >> 15


def _bloom(tag: str) -> int:
    """The four bits that a tag sets in 64 (string_bloom64)."""
    value = murmur2(tag)
    return 1 << (value & 63) | 1 << (value >> 6 & 63) | 1 << (value >> 12 & 63) | 1 << (value >> 18 & 63)
