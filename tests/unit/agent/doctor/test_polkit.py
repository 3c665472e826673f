"""What doctor says to do where pcscd turns the user away: with polkit, and without it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from replug.agent.doctor.finding import Finding, Outcome, fail, missing
from replug.agent.doctor.machine import Machine, PcscReport
from replug.agent.doctor.pcsc import check_pcscd
from replug.agent.doctor.polkit import permit, permit_user_of
from replug.agent.doctor.socket import SocketReport

POLKIT = "usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service"
ASKS = "usr/share/polkit-1/actions/org.debian.pcsc-lite.policy"
NOT_INSTALLED = "pcscd serves nobody, because polkit, which it asks, is not installed"
RULES = "/etc/polkit-1/rules.d"
DENIED = PcscReport(code=0x8010006A)


@pytest.fixture
def asks_polkit(machine: Machine) -> Machine:
    """A machine whose pcscd asks polkit, which is not there."""
    (machine.root / POLKIT).unlink()
    (machine.root / ASKS).parent.mkdir(parents=True)
    (machine.root / ASKS).touch()
    return machine


def find(machine: Machine, pcsc: PcscReport = DENIED) -> Finding:
    known = replace(machine)
    vars(known).update(pcsc=pcsc, agent=SocketReport(), own_agent=SocketReport())
    [found] = check_pcscd(known)
    return found


def test_with_polkit_the_user_needs_a_rule(asks_polkit: Machine) -> None:
    (asks_polkit.root / POLKIT).touch()
    found = find(asks_polkit)
    assert found.reason.startswith("polkit denies this shell access to pcscd")
    assert (found.fix, found.packages) == (permit_user_of(asks_polkit), ())


def test_without_polkit_there_is_no_folder_for_a_rule_yet(asks_polkit: Machine) -> None:
    expected = fail("pcscd", NOT_INSTALLED, f"sudo apt-get install polkitd && {permit_user_of(asks_polkit)}")
    assert find(asks_polkit) == expected
    # Debian 13's is not even started without.
    stopped = replace(asks_polkit, environment=asks_polkit.environment | {"PCSCLITE_CSOCK_NAME": "/nowhere"})
    assert find(stopped) == expected


def test_at_the_machine_itself_polkit_needs_no_rule(asks_polkit: Machine) -> None:
    here = replace(asks_polkit, environment=asks_polkit.environment | {"XDG_SEAT": "seat0"})
    assert find(here) == missing("pcscd", NOT_INSTALLED, "polkitd")


def test_a_pcscd_that_was_told_to_do_without_polkit(asks_polkit: Machine) -> None:
    assert find(asks_polkit, PcscReport()).outcome is Outcome.OK


@pytest.mark.parametrize(
    ("user", "written", "file"),
    [
        ("ada", '"ada"', "50-pcscd-ada.rules"),
        ("ada.lovelace@example.org", '"ada.lovelace@example.org"', "50-pcscd-ada.lovelace-example.org.rules"),
        ("o'hara", '"o\'hara"', "50-pcscd-o-hara.rules"),
    ],
)
def test_the_command_writes_what_polkit_can_read(user: str, written: str, file: str, tmp_path: Path) -> None:
    """Whatever root's umask is."""
    sudo = tmp_path / "sudo"
    sudo.write_text('#!/bin/sh\numask 077\nexec "$@"\n')
    sudo.chmod(0o755)
    command = permit(user)
    assert "\n" not in command
    subprocess.run(
        ["sh", "-c", command.replace(RULES, str(tmp_path))],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        check=True,
    )
    assert (tmp_path / file).stat().st_mode & 0o777 == 0o644
    assert (tmp_path / file).read_text() == (
        f"polkit.addRule(function(action, subject) {{ if (subject.user == {written}"
        ' && action.id.indexOf("org.debian.pcsc-lite.access_") == 0) return polkit.Result.YES; });\n'
    )
