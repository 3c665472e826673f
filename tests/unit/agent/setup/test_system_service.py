"""What `replug setup --ca` writes: units of the system that start the program, and the rest of its files."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replug.agent.control.places import SYSTEM_ENVIRONMENT, SYSTEM_SOCKET
from replug.agent.setup import system_plan, system_service
from replug.agent.setup.record import Record
from replug.agent.setup.system_service import (
    CREDENTIAL,
    SERVICE,
    SOCKET,
    USER,
    check_only_roots,
    files,
    parts_of,
)
from replug.agent.setup.units import ProgramError
from replug.agent.setup.user_manager import UnitState

PROGRAM = Path("/opt/a b/bin/replug-agent")
UNITS = Path("/etc/systemd/system")


def settings(text: str) -> list[str]:
    """The lines of a file that are no comments."""
    return [line for line in text.splitlines() if line and line[0] not in "#/"]


def test_the_units_are_for_the_program_and_the_group() -> None:
    written = files(PROGRAM, "ssh_admins")
    service, socket = settings(written[UNITS / SERVICE]), settings(written[UNITS / SOCKET])
    assert 'ExecStart="/opt/a b/bin/replug-agent" -D' in service
    assert f'ExecReload="/opt/a b/bin/replug" reload {SYSTEM_SOCKET}' in service
    for unit in (service, socket):
        assert f"ConditionFileIsExecutable={PROGRAM}" in unit
    assert f"ListenStream={SYSTEM_SOCKET}" in socket
    assert {f"SocketUser={USER}", "SocketGroup=ssh_admins", "SocketMode=0660"} <= set(socket)
    # `replug` looks where the service does.
    (environment,) = (line for line in service if line.startswith("Environment="))
    assert environment == "Environment=" + " ".join(
        f"{name}={value}" for name, value in SYSTEM_ENVIRONMENT.items()
    )


def test_users_are_told_apart_and_seen() -> None:
    """In a user namespace they would be one; by ProtectProc= their programs could not be named."""
    names = {line.partition("=")[0] for line in settings(files(PROGRAM, "g")[UNITS / SERVICE])}
    assert not names & {"PrivateUsers", "ProtectProc", "ProcSubset", "DynamicUser"}
    assert "NoNewPrivileges" in names


def test_systemd_finds_no_fault_in_them(tmp_path: Path) -> None:
    for name in (SERVICE, SOCKET):
        text = files(Path("/bin/true"), "root")[UNITS / name].replace(USER, "root")
        (tmp_path / name).write_text(
            text.replace('"/bin/true" -D', "/bin/true").replace("/bin/replug ", "/bin/true ")
        )
    verify = ("systemd-analyze", "verify", "--recursive-errors=no", SERVICE, SOCKET)
    done = subprocess.run(verify, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_makes_the_user_and_the_folder(tmp_path: Path) -> None:
    """sysusers.d(5) refuses a colon in a name, and tmpfiles.d(5) a user that there is not."""
    written = files(PROGRAM, "g")
    conf = tmp_path / "replug-ca.conf"
    conf.write_text(written[system_service.SYSUSERS])
    dry_run = ["systemd-sysusers", "--dry-run", conf]
    made = subprocess.run(dry_run, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert (made.returncode, "Creating user" in made.stderr + made.stdout) == (0, True), made
    assert settings(written[system_service.TMPFILES]) == [
        f"d {Path(SYSTEM_SOCKET).parent} 0755 {USER} {USER} -"
    ]


@pytest.mark.parametrize("there", [True, False])
def test_a_credential_is_given_if_there_is_one(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: there if path == CREDENTIAL else os.path.exists(path))
    lines = settings(files(PROGRAM, "g")[UNITS / SERVICE])
    assert (f"LoadCredentialEncrypted=ca-pin:{CREDENTIAL}" in lines) == there


def test_ssh_uses_the_socket_for_those_who_may_write_to_it(tmp_path: Path) -> None:
    text = files(PROGRAM, "g")[system_service.SSH_CONFIG]
    config, may, me = tmp_path / "config", tmp_path / "may", getpass.getuser()

    def agent(but_not: str) -> str:
        written = text.replace(SYSTEM_SOCKET, str(may)).replace("!localuser root", f"!localuser {but_not}")
        config.write_text(written)
        asked = ["ssh", "-G", "-F", config, "server1"]
        done = subprocess.run(asked, capture_output=True, text=True, check=True)
        return next((line for line in done.stdout.splitlines() if line.startswith("identityagent ")), "")

    assert agent("nobody") == ""
    may.touch()
    assert agent("nobody") == f"identityagent {may}"
    assert agent(me) == ""  # root has no certificates there


class Manager:
    """A service manager that does what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def state(self, _unit: str) -> UnitState:
        return UnitState(True, "inactive", "", 0, True, False, "")

    def call(self, *arguments: str) -> str:
        self.calls.append(arguments)
        return ""

    def end(self, *units: str) -> None:
        self.calls.append(("end", *units))


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """`at(path)`: where a file of the system is here."""
    monkeypatch.setattr(system_plan, "RECORD", tmp_path / "var/lib/replug/setup-ca.json")
    monkeypatch.setattr(system_plan, "_CONFIGURATION", tmp_path / "etc/replug")
    monkeypatch.setattr(system_plan, "_run", lambda *_: None)
    real = system_plan.remove_folders
    monkeypatch.setattr(
        system_plan, "remove_folders", lambda all_: real(one for one in all_ if str(tmp_path) in one)
    )
    return lambda path: tmp_path / path.lstrip("/")


def test_what_was_written_is_removed_and_nothing_else(at: Callable[[str], Path], tmp_path: Path) -> None:
    manager: Any = Manager()
    wanted = {at("/etc/one/a.conf"): "a\n", at("/etc/one/b.conf"): "b\n"}
    record, old_umask = Record(), os.umask(0o077)
    try:
        system_plan.apply(manager, record, system_plan.plan(manager, record, wanted))
    finally:
        os.umask(old_umask)
    # Others read it, whatever root's umask.
    assert {oct(path.stat().st_mode & 0o777) for path in wanted} == {"0o644"}
    assert at("/etc/one").stat().st_mode & 0o777 == 0o755
    assert ("start", SOCKET) in manager.calls
    assert system_plan.plan(manager, record, wanted).files == {}
    at("/etc/one/b.conf").write_text("mine\n")
    said: list[str] = []
    assert system_plan.remove(manager, record, said.append, dry_run=True) == 0
    assert at("/etc/one/a.conf").exists()
    assert system_plan.remove(manager, record, said.append, dry_run=False) == 0
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [at("/etc/one/b.conf")]
    assert f"  leave {at('/etc/one/b.conf')}, which was changed since" in said


def test_a_file_of_somebody_else_is_not_touched(at: Callable[[str], Path]) -> None:
    manager: Any = Manager()
    path = at("/etc/a.conf")
    path.parent.mkdir()
    path.write_text("mine\n")
    with pytest.raises(Exception, match="is not replug's and was not touched"):
        system_plan.plan(manager, Record(), {path: "ours\n"})


def test_the_program_is_one_that_only_root_can_change(tmp_path: Path) -> None:
    check_only_roots([Path("/bin/true")])
    other = tmp_path / "replug-agent"
    other.symlink_to("/bin/true")
    with pytest.raises(ProgramError, match="others than root can change"):
        check_only_roots([Path("/bin/true"), other])


def test_python_and_the_code_are_parts_of_the_program() -> None:
    """With `pip install -e` the code is in somebody's folder, and the program in root's."""
    assert {PROGRAM, Path(sys.executable), Path(system_service.__file__)} <= {*parts_of(PROGRAM)}
