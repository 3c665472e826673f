"""A library's constructors are code: none runs before it is known that the library is a PKCS#11 module."""

from __future__ import annotations

import subprocess
from pathlib import Path

from rigs.agent import StartAgent
from rigs.home import Home

SOURCE = Path(__file__).parent.parent / "modules" / "constructor.c"


def build(folder: Path, *options: str) -> Path:
    """Compiles the library."""
    library = folder / f"library{''.join(options)}.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-Wall", "-Wextra", *options, "-o", library, SOURCE], check=True
    )
    return library


def test_no_constructor_of_a_library_runs(start_agent: StartAgent, home: Home) -> None:
    """CVE-2023-38408: `ssh-add -s` with a library that is in the list of allowed ones and is no module."""
    marker = home.folder / "marker"
    agent = start_agent("-P", "*", env={"CONSTRUCTOR_MARKER": str(marker)})
    for options, reason in [
        ((), "it does not export C_GetFunctionList"),
        (("-DIMPORTS",), "it does not export C_GetFunctionList"),
        (("-DHIDDEN",), "it does not export C_GetFunctionList"),
        (("-DNEWER",), "it exports C_GetInterface alone"),
    ]:
        library = build(home.folder, *options)
        said = agent.log
        assert agent.add_provider(library, "").status == 1
        assert f"{library} is not a PKCS#11 module: {reason}" in agent.log.removeprefix(said)
    assert not marker.exists()

    # One that is a module is loaded, so that the marker is one.
    library = build(home.folder, "-DMODULE")
    said = agent.log
    assert agent.add_provider(library, "").status == 1
    assert marker.exists()
    assert "is not a PKCS#11 module" not in agent.log.removeprefix(said)
