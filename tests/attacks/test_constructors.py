"""A library's constructors are code: none runs before it is known that the library is a PKCS#11 module."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from rigs.agent import StartAgent
from rigs.home import Home

SOURCE = Path(__file__).parent.parent / "modules" / "constructor.c"


def build(folder: Path, *options: str) -> Path:
    """Compiles the library."""
    library = folder / "library.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-Wall", "-Wextra", *options, "-o", library, SOURCE], check=True
    )
    return library


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "it does not export C_GetFunctionList"),
        (("-DIMPORTS",), "it does not export C_GetFunctionList"),
        (("-DHIDDEN",), "it does not export C_GetFunctionList"),
        (("-DNEWER",), "it exports C_GetInterface alone"),
    ],
)
def test_no_constructor_of_a_library_runs(
    start_agent: StartAgent, home: Home, options: tuple[str, ...], reason: str
) -> None:
    """CVE-2023-38408: `ssh-add -s` with a library that is in the list of allowed ones and is no module."""
    library, marker = build(home.folder, *options), home.folder / "marker"
    agent = start_agent("-P", "*", env={"CONSTRUCTOR_MARKER": str(marker)})

    assert agent.add_provider(library, "").status == 1

    assert not marker.exists()
    assert f"{library} is not a PKCS#11 module: {reason}" in agent.log


def test_a_module_is_loaded(start_agent: StartAgent, home: Home) -> None:
    """So that the marker is one."""
    library, marker = build(home.folder, "-DMODULE"), home.folder / "marker"
    agent = start_agent("-P", "*", env={"CONSTRUCTOR_MARKER": str(marker)})

    assert agent.add_provider(library, "").status == 1

    assert marker.exists()
    assert "is not a PKCS#11 module" not in agent.log
