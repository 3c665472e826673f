"""What is in the packages that people install."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from rigs.installation import ROOT, build_sdist, build_wheel, install

FOLDERS = ("agent", "protocol", "systemd", "token")
PROGRAMS = ROOT / "agent" / "bin"


ONLY_HERE = {".ci/run", ".editorconfig", ".gitignore"}
"""What nobody needs who builds, tests and packages a release; nor the links in .typing."""


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution."""
    return build_sdist(tmp_path_factory.mktemp("sdist"))


def test_what_a_package_holds_is_what_is_needed_to_run() -> None:
    script, lock = ROOT / "packaging/run_time_lock.py", ROOT / "requirements.lock"
    done = subprocess.run([sys.executable, script, lock], capture_output=True, text=True, check=True)
    entries = [entry for entry in done.stdout.split("\n") if entry and not entry.startswith(" ")]
    names = {entry.partition("==")[0] for entry in entries}
    assert {"asn1crypto", "cffi", "cryptography", "paramiko", "python-pkcs11"} <= names
    assert not names & {"hypothesis", "mypy", "pytest", "ruff", "setuptools"}
    locked = lock.read_text()
    assert all(f"\n{entry}\n    --hash=sha256:" in locked for entry in entries)
    assert done.stdout.count("\n    --hash=sha256:") >= len(entries)


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package that the source distribution makes."""
    return build_wheel(tmp_path_factory.mktemp("wheel"), sdist)


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution as a packager has it."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    shutil.unpack_archive(sdist, unpacked)
    (folder,) = unpacked.iterdir()
    return folder


def test_the_source_distribution_has_all_that_is_kept_here(unpacked: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    kept = {name for name in listed.decode().split("\0")[:-1] if not name.startswith(".typing/")}
    assert [name for name in sorted(kept - ONLY_HERE) if not (unpacked / name).exists()] == []
    assert kept >= ONLY_HERE


def test_the_tests_can_be_run_from_the_source_distribution(unpacked: Path) -> None:
    for arguments in (
        ["--collect-only", "tests/unit"],
        ["tests/unit/test_documents.py", "tests/unit/test_manual.py"],
    ):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        done = subprocess.run(command, cwd=unpacked, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_wheel_has_all_modules_and_units(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {
            name.removeprefix("replug/"): archive.read(name)
            for name in archive.namelist()
            if name.startswith("replug/")
        }
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    assert packed == {
        str(path.relative_to(ROOT)): path.read_bytes()
        for path in files
        if "__pycache__" not in path.parts and path.parent != PROGRAMS
    }
    assert {"agent/commands/main.py", "systemd/replug-agent.socket", "token/py.typed"} <= packed.keys()


@pytest.mark.parametrize("how", ["by its path", "by a link", "on the path"])
@pytest.mark.parametrize("program", ["replug", "replug-agent"])
def test_the_installed_programs_start_python_isolated(
    program: str, how: str, installed: Path, tmp_path: Path
) -> None:
    """In a virtual environment, as pip installs them; pipx and uv put a link to them elsewhere."""
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "sitecustomize.py").write_text("print('trapped', flush=True)")
    command: str | Path = installed / program
    if how == "by a link":
        (tmp_path / "link").symlink_to(command)
        command = tmp_path / "link"
    elif how == "on the path":
        command = program
    environment = {"PATH": f"{installed}:/usr/bin:/bin", "PYTHONPATH": str(trap), "PYTHONHOME": str(trap)}
    done = subprocess.run(
        [command, "-V"], cwd=trap, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout + done.stderr == f"{program} {version('replug')}\n"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a virtual environment with the package in it."""
    return install(wheel, tmp_path_factory.mktemp("venv"))
