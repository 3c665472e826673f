"""What `replug setup` writes into the units: where the program is, whatever its path."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from replug.agent.setup.units import SERVICE, ProgramError, agent_program, quoted, unit_files, unit_texts
from replug.agent.setup.user_manager import units_folder


@pytest.mark.parametrize(
    "name",
    ["plain", "with space", "100%", "dollar$HOME", "semi;colon", "-dash", "ü"],
)
def test_systemd_reads_the_path_that_was_meant(name: str, tmp_path: Path) -> None:
    """It complains about a program that is not there, by its name."""
    unit = tmp_path / "test.service"
    missing = tmp_path / name / "replug-agent"
    unit.write_text(f"[Service]\nExecStart={quoted(str(missing))} -D\n")
    verify = ("systemd-analyze", "verify", "--user", "--recursive-errors=no", unit)
    env = {
        "XDG_RUNTIME_DIR": str(tmp_path),
        "HOME": str(tmp_path),
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(verify, env=env, capture_output=True, text=True)
    assert f"Command {missing} is not executable: No such file or directory" in done.stderr
    missing.parent.mkdir()
    missing.symlink_to("/bin/true")
    done = subprocess.run(verify, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ['quo"ted', "it's", "back\\slash", "new\nline"])
def test_a_path_that_systemd_does_not_take(name: str) -> None:
    with pytest.raises(ProgramError, match="install replug elsewhere"):
        quoted(f"/opt/{name}/replug-agent")


def test_the_service_starts_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    files = unit_files(Path("/opt/replug/bin/replug-agent"), [])
    assert {str(path.relative_to(tmp_path)) for path in files} == {
        "systemd/user/replug-agent.service",
        "systemd/user/replug-agent.socket",
    }
    service = files[tmp_path / "systemd/user" / SERVICE].splitlines()
    assert "ExecStart=/opt/replug/bin/replug-agent -D" in service
    for text in files.values():
        assert "ConditionFileIsExecutable=/opt/replug/bin/replug-agent" in text.splitlines()


def packaged(folder: Path, program: str) -> Path:
    """A folder of systemd's with the units of a package whose agent is `program`."""
    folder.mkdir()
    for name, text in unit_texts(Path(program)).items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("order", "needed"),
    [("own package", 0), ("other package", 2), ("package other", 0), ("other", 2), ("", 2)],
)
def test_units_that_a_package_brought_are_not_copied(
    order: str, needed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """systemd takes the first it finds; those in the user's own folder are what setup decides on."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    units_folder().parent.mkdir(parents=True)
    folders = {
        "own": packaged(units_folder(), "/home/you/.local/bin/replug-agent"),
        "package": packaged(tmp_path / "package", "/usr/bin/replug-agent"),
        "other": packaged(tmp_path / "other", "/opt/bin/replug-agent"),
    }
    files = unit_files(Path("/usr/bin/replug-agent"), [folders[name] for name in order.split()])
    assert len(files) == needed
    assert {path.parent for path in files} <= {units_folder()}


def test_a_package_that_lacks_a_unit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = packaged(tmp_path / "package", "/usr/bin/replug-agent")
    (folder / SERVICE).unlink()
    assert len(unit_files(Path("/usr/bin/replug-agent"), [folder])) == 2


def installed(folder: Path) -> Path:
    """A stand-in for the programs in a folder; `replug`'s path."""
    folder.mkdir(parents=True)
    for name in ("replug", "replug-agent"):
        (folder / name).symlink_to("/bin/true")
    return folder / "replug"


def test_the_link_is_meant_not_what_it_leads_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    replug = installed(tmp_path / "bin")
    monkeypatch.setattr(sys, "argv", [str(replug)])
    assert agent_program() == tmp_path / "bin" / "replug-agent"
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "argv", ["replug"])
    assert agent_program() == tmp_path / "bin" / "replug-agent"


def test_a_program_in_a_cache_does_not_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As with `pipx run` and `uvx`."""
    folder = tmp_path / "cache" / "pipx" / "bin"
    replug = installed(folder)
    for name in ("replug", "replug-agent"):
        (folder / name).unlink()
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(replug)])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ProgramError, match="is in a cache and will be deleted"):
        agent_program()
