"""Who is tried with which key, and what `main.py` gets to know of it (`--client NAME --outcomes FILE`)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clients.all_clients import CLIENTS


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --client and --outcomes."""
    parser.addoption("--client", choices=list(CLIENTS), help="only this one")
    parser.addoption("--outcomes", type=Path, help="a file for what was seen of each visit, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Starts to collect the outcomes."""
    if file := config.getoption("--outcomes"):
        config.pluginmanager.register(Outcomes(file))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each client visits with each key that it is tried with."""
    chosen = metafunc.config.getoption("--client")
    visits = [
        pytest.param(name, key, id=f"{name} {key}")
        for name in ([chosen] if chosen else CLIENTS)
        for key in CLIENTS[name].keys
    ]
    metafunc.parametrize(("client", "key"), visits, indirect=["client"], scope="module")


class Outcomes:
    """Writes down what was seen of each visit, and whether all was well."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._found: list[object] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one visit."""
        if report.when == "call":
            self._found.append(dict(report.user_properties))

    def pytest_sessionfinish(self) -> None:
        """At the end of all visits."""
        self._file.write_text(json.dumps(self._found))
