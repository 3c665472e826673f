"""Compiles the PKCS#11 modules of tests/modules that pass on to SoftHSM."""

from __future__ import annotations

import subprocess
from pathlib import Path

from rigs.softhsm import MODULE

_SOURCES = Path(__file__).parent.parent / "modules"


def build(name: str, folder: Path) -> Path:
    """Compiles `name`.c into `folder` and returns the module's path."""
    module = folder / f"{name}.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-I/usr/include/p11-kit-1",
         f'-DSOFTHSM="{MODULE}"', "-o", module, _SOURCES / f"{name}.c"],
        check=True,
    )  # fmt: skip
    return module
