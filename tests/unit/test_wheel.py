"""What is in the packages that people install."""

from __future__ import annotations

import subprocess
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from rigs.installation import ROOT, build_wheel, install

FOLDERS = ("agent", "protocol", "systemd", "token")
PROGRAMS = ROOT / "agent" / "bin"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package that this source makes."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


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
