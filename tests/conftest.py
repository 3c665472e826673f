"""What holds for every test of the project, and fixtures that more than one folder uses."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from rigs.agent import Agent, StartAgent
from rigs.askpass import Askpass
from rigs.c_modules import build
from rigs.faulty import Faulty
from rigs.home import Home
from rigs.sshd import Server

REPLUG = Path(sys.executable).with_name("replug-agent")
_KEPT = ("PATH", "CI", "PYTEST_")
"""How the names begin of what the tests see of the environment they are run in."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --agent."""
    parser.addoption(
        "--agent", type=Path, default=REPLUG, help="the program under test, say /usr/bin/ssh-agent"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Makes every process of the tests alike, whatever the session is that they are run in."""
    _clean_environment(config)
    # The programs under test have the signals of a terminal, also where the tests run without one.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _clean_environment(config: pytest.Config) -> None:
    """No agent, display, bus, locale, temporary folder or home of the user who runs the tests.

    What pytest-xdist starts inherits this. PYTHONPATH has had its effect already: it is undone.
    """
    for folder in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        sys.path[:] = [path for path in sys.path if path != os.path.abspath(folder)]
    for name in [name for name in os.environ if not name.startswith(_KEPT)]:
        del os.environ[name]
    tempfile.tempdir = None  # it may have been looked up with another TMPDIR
    home = tempfile.mkdtemp(prefix="rp-home-")
    config.add_cleanup(partial(shutil.rmtree, home, ignore_errors=True))
    os.environ.update(HOME=home, LANG="C.UTF-8", SHELL="/bin/sh")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """More than there are cores: many tests wait for cards, timers and other programs."""
    return 2 * len(os.sched_getaffinity(0))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failure: what it needs is missing there, and nobody would notice."""
    report = yield
    if os.environ.get("CI") and report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"in CI nothing may be skipped, but {item.nodeid} was: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole module that skips itself."""
    report = yield
    if os.environ.get("CI") and report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"in CI nothing may be skipped, but {collector.nodeid} was: {reason}"
    return report


@pytest.fixture
def home() -> Iterator[Home]:
    """A home of this test's own."""
    home = Home()
    yield home
    home.remove()


@pytest.fixture
def server(home: Home) -> Server:
    """An sshd that knows no keys yet."""
    return Server(home)


@pytest.fixture
def askpass(home: Home) -> Askpass:
    """What asks for PINs; it cancels until it is told otherwise."""
    return Askpass(home)


@pytest.fixture(scope="session")
def faulty_built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The misbehaving module, compiled."""
    return build("faulty", tmp_path_factory.mktemp("modules"))


@pytest.fixture
def faulty(home: Home, faulty_built: Path) -> Faulty:
    """A misbehaving module with a token of its own: give its `env` to the agent."""
    return Faulty(home, faulty_built)


@pytest.fixture(scope="session")
def odd_built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module with the habits of others, compiled."""
    return build("odd", tmp_path_factory.mktemp("modules"))


@pytest.fixture
def start_agent(request: pytest.FixtureRequest, home: Home) -> Iterator[StartAgent]:
    """Starts agents in `home`: `start_agent("-t", "90", program=..., env=...)`.

    Each has to be running still when the test ends, and to end with status 2 on SIGTERM.
    """
    with ExitStack() as agents:

        def start(*options: str, program: Path | None = None, env: dict[str, str] | None = None) -> Agent:
            agent = Agent(program or request.config.getoption("agent"), home, *options, env=env)
            agents.callback(_end, agent)
            return agent

        yield start


def _end(agent: Agent) -> None:
    crashed = agent.process.poll()
    status = agent.stop()
    assert crashed is None, f"the agent ended by itself with {crashed}; its log:\n{agent.log}"
    assert status == 2, agent.log


@pytest.fixture
def agent(start_agent: StartAgent) -> Agent:
    """The agent under test, with no keys."""
    return start_agent()
