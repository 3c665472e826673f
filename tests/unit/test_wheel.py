"""What is in the packages that people install."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_has_the_units(tmp_path: Path) -> None:
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
            name.removeprefix("replug/systemd/"): archive.read(name)
            for name in archive.namelist()
            if name.startswith("replug/systemd/")
        }
    assert packed == {path.name: path.read_bytes() for path in (ROOT / "systemd").iterdir()}
    assert "replug-agent.socket" in packed


def test_every_room_is_packed() -> None:
    rooms = {
        file.parent.relative_to(ROOT)
        for folder in ("agent", "protocol", "token")
        for file in (ROOT / folder).rglob("*.py")
    }
    expected = {f"replug.{'.'.join(room.parts)}": str(room) for room in rooms} | {"replug.systemd": "systemd"}
    packing = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert packing["package-dir"] == expected
    assert set(packing["packages"]) == expected.keys()
