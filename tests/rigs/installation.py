"""The packages as pip builds and installs them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BUILD_SDIST = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"


def build_sdist(folder: Path) -> Path:
    """Makes the source distribution in `folder`."""
    source = folder / "source"
    kept_out = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=kept_out)
    command = [sys.executable, "-c", _BUILD_SDIST, str(folder)]
    subprocess.run(command, cwd=source, stdout=subprocess.DEVNULL, check=True)
    shutil.rmtree(source)
    (sdist,) = folder.glob("*.tar.gz")
    return sdist


def build_wheel(folder: Path, source: Path | None = None) -> Path:
    """Makes the wheel in `folder`, of a source distribution; by default one of this source."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index",
         "--wheel-dir", folder, source or build_sdist(folder)],
        check=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """Makes a virtual environment in `folder` with the wheel in it; where its programs are."""
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
