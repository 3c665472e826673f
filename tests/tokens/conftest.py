"""The journey's fixtures, and what `main.py` gets to know of it (`--token NAME --outcomes FILE`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from rigs.tried_all import TOKENS
from tokens.user import User


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --token and --outcomes."""
    parser.addoption("--token", choices=list(TOKENS), help="only this one")
    parser.addoption("--outcomes", type=Path, help="a file for [step, outcome, remark] of each step, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Starts to collect the outcomes."""
    if file := config.getoption("--outcomes"):
        config.pluginmanager.register(Outcomes(file))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every step is taken with every token."""
    token = metafunc.config.getoption("--token")
    metafunc.parametrize("user", [token] if token else list(TOKENS), indirect=True, scope="module")


class Outcomes:
    """Writes down what each step came to."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._found: dict[str, tuple[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one step."""
        step, remark = (
            dict(report.user_properties).get("step"),
            dict(report.user_properties).get("remark", ""),
        )
        if report.when == "call" or report.outcome != "passed":
            self._found[step] = report.outcome, remark

    def pytest_sessionfinish(self) -> None:
        """At the end of all steps."""
        self._file.write_text(json.dumps([[step, *found] for step, found in self._found.items()]))


@pytest.fixture(scope="module")
def user(request: pytest.FixtureRequest) -> Iterator[User]:
    """A user with this token."""
    with closing(TOKENS[request.param]()) as token, closing(User(token)) as user:
        yield user


@pytest.fixture(autouse=True)
def step(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    """What the table calls this step: the first line of the test's docstring."""
    record_property("step", request.function.__doc__.splitlines()[0])


@pytest.fixture
def remark(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Says in the table why a token does not do a step as the others do."""
    return lambda text: record_property("remark", text)
