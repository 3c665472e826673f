"""What is in the packages that people install."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


FOLDERS = ("agent", "protocol", "systemd", "token")
PROGRAMS = ROOT / "agent" / "bin"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package that this source makes."""
    tmp_path = tmp_path_factory.mktemp("wheel")
    source = tmp_path / "source"
    kept_out = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=kept_out)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index",
         "--wheel-dir", tmp_path, source],
        check=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    return wheel


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
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet",
         "--no-deps", "--no-index", wheel],
        check=True,
    )  # fmt: skip
    # What it depends on is here, and is not what is tested.
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"
