"""Whether the smart card can be used: pcscd and its permissions, the readers, programs that use the card."""

from __future__ import annotations

import plistlib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from replug.agent.doctor import polkit
from replug.agent.doctor.finding import Finding, fail, missing, ok, warn
from replug.agent.doctor.machine import Machine, Reader

SECURITY_VIOLATION = 0x8010006A
"""SCARD_W_SECURITY_VIOLATION: polkit denies access."""
SHARING_VIOLATION = 0x8010000B
"""SCARD_E_SHARING_VIOLATION: another program has exclusive access."""
_DRIVERS = "usr/lib/pcsc/drivers"
_CCID = "ifd-ccid.bundle"
_SERVICE_STOPPED = 0x8010001E  # SCARD_E_SERVICE_STOPPED: pcscd and the library are of different versions


@dataclass(frozen=True)
class UsbReader:
    """A reader as the kernel sees it."""

    name: str
    vendor: int
    product: int


def check_pcscd(machine: Machine) -> Iterator[Finding]:
    """pcscd is installed, runs, and gives this user access."""
    path = _socket(machine)
    reached = _reach(path)
    if reached == "no" and _served_without(machine):
        yield ok("pcscd", "is not running, and the tokens here do not need it")
    elif polkit.is_missing(machine) and not (reached == "yes" and machine.pcsc.answers):
        yield polkit.missing_polkit(machine)
    elif reached == "no":
        installed = machine.find_program("pcscd") is not None
        if not installed:
            yield missing("pcscd", "pcscd is not installed: smart cards need it", "pcscd")
        elif not path.exists():
            yield fail("pcscd", f"pcscd is not running: its socket {path} is missing", _start(machine))
        else:
            yield fail("pcscd", f"pcscd is not running: no process listens at {path}", _restart(machine))
    elif reached == "denied":
        yield fail("pcscd", f"this user may not open pcscd's socket {path}", _restart(machine))
    else:
        yield _answer(machine)


def _answer(machine: Machine) -> Finding:
    report = machine.pcsc
    if not report.library:
        return missing(
            "pcscd", "libpcsclite.so.1 is missing: programs cannot reach pcscd without it", "libpcsclite1"
        )
    if report.hung:
        return fail("pcscd", "pcscd accepts a connection but does not answer", _restart(machine))
    if report.code == _SERVICE_STOPPED:
        return fail("pcscd", "pcscd and libpcsclite.so.1 are of different versions", _restart(machine))
    if report.code:
        # If polkit denies access, pcscd closes the connection (winscard_svc.c, ContextThread), which the
        # library reports as a broken connection; only newer ones send the code.
        if report.by_agent:
            reason = "polkit denies the agent access to pcscd, as where nobody is logged in at the machine"
        else:
            remote = ", as it does for logins over ssh" if "SSH_CONNECTION" in machine.environment else ""
            reason = f"polkit denies this shell access to pcscd{remote}; no agent runs that could try"
        return fail("pcscd", f"{reason} ({report.code:#x})", polkit.permit_user_of(machine))
    return ok("pcscd", "answers")


def check_readers(machine: Machine) -> Iterator[Finding]:
    """pcscd shows every USB reader, and their cards can be used."""
    attached = usb_readers(machine.root / "sys")
    reached = _reach(_socket(machine))
    readers = machine.pcsc.readers if reached == "yes" else ()
    names = ", ".join(reader.name for reader in _not_at_pcscd(machine, attached, readers))
    if names:
        if not (machine.root / _DRIVERS / _CCID).exists():
            yield missing("reader", f"{names}: no driver is installed for it", "libccid")
        elif reached == "no":
            reason = f"{names}: attached by USB, but pcscd, which opens it, does not run"
            if machine.find_program("pcscd") is None:
                yield missing("reader", reason, "pcscd")
            else:
                yield fail("reader", reason, _start(machine))
        elif reached == "yes" and machine.pcsc.answers and not _internal_users(machine):
            shown = ", ".join(reader.name for reader in readers) or "no reader"
            yield fail(
                "reader",
                f"{names}: attached by USB, but pcscd could not open it: it shows {shown}",
                f"{_restart(machine)}; if that does not help, see journalctl -u pcscd",
            )
    elif not readers and not _served_without(machine):
        yield warn("reader", "no smart card reader is attached; network HSMs and SoftHSM need none")
    for reader in readers:
        yield _card(machine, reader)


def _not_at_pcscd(machine: Machine, attached: list[UsbReader], readers: Sequence[Reader]) -> list[UsbReader]:
    """The USB readers that pcscd does not show.

    pcscd has its driver's name for a reader that is in the driver's list. For others only the numbers can be
    compared.
    """
    drivers = _driver_names(machine.root / _DRIVERS / _CCID / "Contents" / "Info.plist")
    left = [reader.name for reader in readers]
    gone = []
    for reader in attached:
        name = drivers.get((reader.vendor, reader.product))
        found = next((one for one in left if name is None or one.startswith(name)), None)
        if found is None:
            gone.append(reader)
        else:
            left.remove(found)
    return gone


def _driver_names(info: Path) -> dict[tuple[int, int], str]:
    """The names that libccid gives readers, by vendor and product."""
    try:
        with info.open("rb") as file:
            values = plistlib.load(file)
        lists = [values[key] for key in ("ifdVendorID", "ifdProductID", "ifdFriendlyName")]
        return {
            (int(vendor, 16), int(product, 16)): name for vendor, product, name in zip(*lists, strict=True)
        }
    except (OSError, ValueError, KeyError, TypeError, plistlib.InvalidFileException):
        return {}


def _card(machine: Machine, reader: Reader) -> Finding:
    if not reader.card:
        return ok("reader", f"{reader.name}: no card in it")
    if reader.exclusive or reader.connect == SHARING_VIOLATION:
        users = ", ".join(_users(machine)) or "a program of another user"
        return fail(
            "card",
            f"{reader.name}: another program has exclusive access (possibly {users})",
            _release(users),
        )
    if reader.connect == SECURITY_VIOLATION:
        whom = "the agent" if machine.pcsc.by_agent else "this shell"
        reason = f"{reader.name}: polkit denies {whom} access to the card"
        return fail("card", reason, polkit.permit_user_of(machine))
    if reader.mute:
        return fail(
            "card",
            f"{reader.name}: the card does not answer",
            "reinsert the card the other way round, or clean its contacts",
        )
    if reader.connect:
        return fail(
            "card", f"{reader.name}: pcscd cannot use the card ({reader.connect:#x})", _restart(machine)
        )
    return ok("card", f"{reader.name}: the card answers")


def check_scdaemon(machine: Machine) -> Iterator[Finding]:
    """GnuPG's smart card daemon leaves the reader to pcscd."""
    users = _internal_users(machine)
    if users:
        yield fail(
            "scdaemon",
            f"{', '.join(users)} has exclusive access to a USB reader, bypassing pcscd",
            "echo disable-ccid >>~/.gnupg/scdaemon.conf; gpgconf --kill scdaemon",
        )


def check_udev(machine: Machine) -> Iterator[Finding]:
    """udev reports USB devices that are plugged in or out."""
    if (machine.root / "run" / "udev" / "control").exists():
        yield ok("udev", "reports tokens that are plugged in or out")
    else:
        yield warn(
            "udev",
            f"no udev here ({machine.root / 'run/udev/control'} is missing, as in a container):"
            " a token is noticed up to a second later",
            "give the container --volume /run/udev:/run/udev:ro and the host's network",
        )


def usb_readers(sys: Path) -> list[UsbReader]:
    """The USB devices that have a smart card interface (class 0x0b)."""
    found = {}
    for interface in sorted(sys.glob("bus/usb/devices/*:*")):
        if _read(interface / "bInterfaceClass") == "0b":
            device = interface.parent / interface.name.split(":")[0]
            vendor, product = (_read(device / name) for name in ("idVendor", "idProduct"))
            name = f"{_read(device / 'manufacturer')} {_read(device / 'product')}".strip()
            found[device.name] = UsbReader(
                name or f"USB device {vendor}:{product}", int(vendor or "0", 16), int(product or "0", 16)
            )
    return list(found.values())


def _served_without(machine: Machine) -> bool:
    """Whether the agent serves a token without pcscd."""
    return any(token["state"] in ("present", "ready") for token in (machine.status or {}).get("tokens", []))


def _socket(machine: Machine) -> Path:
    named = machine.environment.get("PCSCLITE_CSOCK_NAME")
    return Path(named) if named else machine.root / "run" / "pcscd" / "pcscd.comm"


def _reach(path: Path) -> str:
    """Whether a process listens: yes, no, or denied."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        try:
            client.connect(str(path))
        except PermissionError:
            return "denied"
        except OSError:
            return "no"
    return "yes"


def _users(machine: Machine) -> list[str]:
    """Programs that have loaded PC/SC's library, except the agent's workers, which share the card."""
    agent = (machine.status or {}).get("pid")
    return [
        f"{name} (pid {pid})"
        for pid, name in machine.processes()
        if name == "scdaemon" or (machine.maps_file(pid, "libpcsclite") and machine.parent(pid) != agent)
    ]


def _internal_users(machine: Machine) -> list[str]:
    return [
        f"{name} (pid {pid})"
        for pid, name in machine.processes()
        if name == "scdaemon" and machine.uses_file(pid, "/dev/bus/usb/")
    ]


def _start(machine: Machine) -> str:
    """The command that starts pcscd, with systemd or, as in containers, without it."""
    managed = (machine.root / "run" / "systemd" / "system").exists()
    return "sudo systemctl enable --now pcscd.socket" if managed else "sudo pcscd"


def _restart(machine: Machine) -> str:
    managed = (machine.root / "run" / "systemd" / "system").exists()
    return "sudo systemctl restart pcscd.socket pcscd.service" if managed else "end pcscd; sudo pcscd"


def _release(users: str) -> str:
    if "scdaemon" in users:
        return "echo pcsc-shared >>~/.gnupg/scdaemon.conf; gpgconf --kill scdaemon"
    return "end that program, or configure it to share the card"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
