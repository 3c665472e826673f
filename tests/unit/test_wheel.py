"""What is in the packages that people install."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


FOLDERS = ("agent", "protocol", "systemd", "token")


def test_the_wheel_has_all_modules_and_units(tmp_path: Path) -> None:
    source = tmp_path / "source"
    kept_out = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=kept_out)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index",
         "--wheel-dir", tmp_path, source],
        check=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {
            name.removeprefix("replug/"): archive.read(name)
            for name in archive.namelist()
            if name.startswith("replug/")
        }
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    assert packed == {
        str(path.relative_to(ROOT)): path.read_bytes() for path in files if "__pycache__" not in path.parts
    }
    assert {"agent/commands/main.py", "systemd/replug-agent.socket", "token/py.typed"} <= packed.keys()
