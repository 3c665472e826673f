"""What `replug doctor` makes of facts that are hard to arrange: USB devices, and rare answers of pcscd."""

from __future__ import annotations

import errno
import os
import plistlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from replug.agent.commands import doctor as doctor_command
from replug.agent.commands.doctor import describe, examine
from replug.agent.commands.terminal_style import Style
from replug.agent.doctor import pcsc as doctor_pcsc
from replug.agent.doctor import ssh as doctor_agent
from replug.agent.doctor.finding import Finding, Outcome, fail, missing, ok, warn
from replug.agent.doctor.machine import Machine, PcscReport, Reader
from replug.agent.doctor.socket import SocketReport

EMPTY = Reader("Yubico YubiKey 00 00", card=False, exclusive=False, mute=False, connect=0)


def told(machine: Machine, **facts: Any) -> Machine:
    """The same machine, some of whose facts are known already."""
    known = replace(machine)
    vars(known).update(facts)
    return known


def attach_usb(machine: Machine, device: str, interface_class: str, product: str = "") -> None:
    """Puts a device there as the kernel's sysfs shows it."""
    folder = machine.root / "sys" / "bus" / "usb" / "devices"
    (folder / device).mkdir(parents=True)
    (folder / f"{device}:1.0").mkdir()
    (folder / f"{device}:1.0" / "bInterfaceClass").write_text(f"{interface_class}\n")
    (folder / device / "idVendor").write_text("1050\n")
    (folder / device / "idProduct").write_text("0407\n")
    if product:
        (folder / device / "manufacturer").write_text("Yubico\n")
        (folder / device / "product").write_text(f"{product}\n")


def test_a_reader_without_a_driver(machine: Machine) -> None:
    attach_usb(machine, "1-1", "0b", "YubiKey CCID")
    attach_usb(machine, "1-2", "03", "YubiKey keyboard")
    (machine.root / doctor_pcsc._DRIVERS / "ifd-ccid.bundle").rmdir()
    [found] = doctor_pcsc.check_readers(told(machine, pcsc=PcscReport()))
    assert found == missing("reader", "Yubico YubiKey CCID: no driver is installed for it", "libccid")


def test_a_reader_that_pcscd_does_not_show(machine: Machine) -> None:
    attach_usb(machine, "1-1", "0b")
    [found] = doctor_pcsc.check_readers(told(machine, pcsc=PcscReport()))
    assert found.outcome is Outcome.FAIL
    assert found.reason == (
        "USB device 1050:0407: attached by USB, but pcscd could not open it: it shows no reader"
    )
    [found] = doctor_pcsc.check_readers(told(machine, pcsc=PcscReport(readers=(EMPTY,))))
    assert found == ok("reader", "Yubico YubiKey 00 00: no card in it")


def test_readers_are_told_apart_by_the_names_of_the_driver(machine: Machine) -> None:
    """One of vpcd's, or another that works, is not taken for the one that pcscd could not open."""
    info = machine.root / doctor_pcsc._DRIVERS / doctor_pcsc._CCID / "Contents" / "Info.plist"
    info.parent.mkdir()
    info.write_bytes(
        plistlib.dumps(
            {
                "ifdVendorID": ["0x1050", "0x076B"],
                "ifdProductID": ["0x0407", "0x3021"],
                "ifdFriendlyName": ["Yubico YubiKey OTP+FIDO+CCID", "OMNIKEY 3x21"],
            }
        )
    )
    attach_usb(machine, "1-1", "0b", "YubiKey OTP+FIDO+CCID")
    other = replace(EMPTY, name="Virtual PCD 00 00")
    found, _ = doctor_pcsc.check_readers(told(machine, pcsc=PcscReport(readers=(other,))))
    assert found.reason == (
        "Yubico YubiKey OTP+FIDO+CCID: attached by USB, but pcscd could not open it:"
        " it shows Virtual PCD 00 00"
    )
    own = replace(EMPTY, name="Yubico YubiKey OTP+FIDO+CCID 00 00")
    assert [
        one.outcome for one in doctor_pcsc.check_readers(told(machine, pcsc=PcscReport(readers=(own,))))
    ] == ["ok"]


def test_a_reader_without_pcscd(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    attach_usb(machine, "1-1", "0b", "YubiKey CCID")
    absent = replace(machine, environment={"PCSCLITE_CSOCK_NAME": "/nowhere"})
    reason = "Yubico YubiKey CCID: attached by USB, but pcscd, which opens it, does not run"
    for installed, expected in (
        ("/usr/sbin/pcscd", fail("reader", reason, "sudo pcscd")),
        (None, missing("reader", reason, "pcscd")),
    ):
        monkeypatch.setattr(Machine, "find_program", lambda *_, path=installed: path)
        [found] = doctor_pcsc.check_readers(told(absent, agent=SocketReport(), own_agent=SocketReport()))
        assert found == expected


def test_scdaemon_has_the_reader_itself(machine: Machine) -> None:
    attach_usb(machine, "1-1", "0b")
    process = machine.root / "proc" / "4711"
    (process / "fd").mkdir(parents=True)
    (process / "comm").write_text("scdaemon\n")
    assert list(doctor_pcsc.check_scdaemon(machine)) == []
    os.symlink("/dev/bus/usb/001/004", process / "fd" / "7")
    [found] = doctor_pcsc.check_scdaemon(machine)
    assert (found.outcome, found.reason) == (
        Outcome.FAIL,
        "scdaemon (pid 4711) has exclusive access to a USB reader, bypassing pcscd",
    )
    assert list(doctor_pcsc.check_readers(told(machine, pcsc=PcscReport()))) == []


@pytest.mark.parametrize(
    ("report", "words", "fix"),
    [
        (PcscReport(library=False), "libpcsclite.so.1 is missing", "libpcsclite1"),
        (PcscReport(code=0x8010001E), "of different versions", "pcscd"),
        (
            PcscReport(code=0x8010006A),
            "denies this shell access to pcscd; no agent runs that could try (0x8010006a)",
            "/etc/polkit-1/rules.d/",
        ),
        (
            PcscReport(code=0x80100013),
            "denies this shell access to pcscd; no agent runs that could try (0x80100013)",
            "/etc/polkit-1/rules.d/",
        ),
        (
            PcscReport(code=0x80100013, by_agent=True),
            "polkit denies the agent access to pcscd, as where nobody is logged in at the machine (",
            "/etc/polkit-1/rules.d/",
        ),
    ],
)
def test_answers_of_pcscd(machine: Machine, report: PcscReport, words: str, fix: str) -> None:
    [found] = doctor_pcsc.check_pcscd(told(machine, pcsc=report))
    assert found.outcome is Outcome.FAIL
    assert words in found.reason
    assert fix in found.fix


def test_the_socket_of_pcscd_may_not_be_opened(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root, as whom tests may run, is never refused."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    [found] = doctor_pcsc.check_pcscd(machine)
    assert found.outcome is Outcome.FAIL
    assert found.reason.startswith("this user may not open pcscd's socket ")


def test_a_reader_is_not_missed_while_pcscd_says_nothing(machine: Machine) -> None:
    attach_usb(machine, "1-1", "0b")
    assert list(doctor_pcsc.check_readers(told(machine, pcsc=PcscReport(hung=True)))) == []


@pytest.mark.parametrize(
    ("reader", "words"),
    [
        (replace(EMPTY, card=True, connect=0x8010006A), "polkit denies this shell access to the card"),
        (replace(EMPTY, card=True, connect=0x8010000B), "another program has exclusive access (possibly "),
        (replace(EMPTY, card=True, mute=True, connect=0x80100066), "the card does not answer"),
        (replace(EMPTY, card=True, connect=0x80100001), "pcscd cannot use the card (0x80100001)"),
    ],
)
def test_cards_that_cannot_be_used(machine: Machine, reader: Reader, words: str) -> None:
    [found] = doctor_pcsc.check_readers(told(machine, pcsc=PcscReport(readers=(reader,))))
    assert (found.check, found.outcome) == ("card", Outcome.FAIL)
    assert words in found.reason


def test_pcscd_is_not_installed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "find_program", lambda *_: None)
    absent = replace(machine, environment={"PCSCLITE_CSOCK_NAME": "/nowhere"})
    [found] = doctor_pcsc.check_pcscd(told(absent, agent=SocketReport()))
    assert found.fix == "sudo apt-get install pcscd"
    ready = SocketReport(status={"tokens": [{"state": "ready"}]})
    [found] = doctor_pcsc.check_pcscd(told(absent, agent=ready))
    assert found.outcome is Outcome.OK


@pytest.mark.parametrize(
    ("path", "program", "words"),
    [
        ("/run/user/1000/openssh_agent", "systemd", "OpenSSH's ssh-agent"),
        ("/run/user/1000/gcr/ssh", "systemd", "GNOME's gcr-ssh-agent"),
        ("/run/user/1000/keyring/ssh", "gnome-keyring-d", "GNOME's keyring"),
        ("/run/user/1000/gnupg/S.gpg-agent.ssh", "systemd", "GnuPG's gpg-agent"),
        ("/tmp/ssh-x/agent.1", "sshd-session", "forwarded from another machine"),
        ("/tmp/agent", "yubikey-agent", "yubikey-agent"),
        ("/tmp/agent", "", "another program"),
    ],
)
def test_other_agents_by_name(machine: Machine, path: str, program: str, words: str) -> None:
    here = replace(machine, environment={"SSH_AUTH_SOCK": path})
    [found] = doctor_agent.check_socket(told(here, agent=SocketReport(path, "", program)))
    assert f"where {words}" in found.reason or words in found.reason
    assert found.outcome is Outcome.FAIL


def test_a_check_that_breaks_is_a_finding_and_no_end(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_first(_: Machine) -> Iterator[Finding]:
        yield ok("first", "is well")
        raise RuntimeError("out of order")

    def check_second(_: Machine) -> Iterator[Finding]:
        yield ok("second", "is well")

    monkeypatch.setattr(doctor_command, "_checks", lambda: (check_first, check_second))
    found = list(examine(machine))
    assert [(one.check, one.outcome) for one in found] == [
        ("first", "ok"),
        ("first", "fail"),
        ("second", "ok"),
    ]
    assert "out of order" in found[1].reason


def test_nothing_found_can_forge_a_line() -> None:
    found = fail("token", "\x1b[2J\nok   agent: all is well", "x\ny")
    piped = Style(colours=False, unicode=False, width=None)
    for style in (piped, Style(colours=True, unicode=True, width=80)):
        text = "\n".join(describe(found, style))
        assert "\x1b[2J" not in text
        assert not any(line.startswith("ok ") for line in text.splitlines())


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("The agent is old. Its keys are lost.", "The agent is old. Its keys are lost; fix: do it ."),
        ("systemd says: Failed to ...", "systemd says: Failed to ...; fix: do it ."),
    ],
)
def test_a_reason_may_be_a_sentence(reason: str, shown: str) -> None:
    [line] = describe(warn("release", reason, "do it ."), Style(colours=False, unicode=False, width=None))
    assert line == f"warn release: {shown}"
