"""The package is replaced or removed while the agent runs."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rigs.agent import PIN_PROMPT, Agent
from rigs.home import Home
from rigs.installation import build_wheel, install
from rigs.softhsm import Token
from rigs.terminal import Done, eventually

REPLUG = Path(sys.executable).with_name("replug")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs."""
    folder = tmp_path_factory.mktemp("upgrade")
    (folder / "wheel").mkdir()
    return install(build_wheel(folder / "wheel"), folder / "venv")


@pytest.fixture
def package(installation: Path, tmp_path: Path) -> Iterator[Path]:
    """The package, which the test removes."""
    (package,) = installation.parent.glob("lib/python*/site-packages/replug")
    shutil.copytree(package, tmp_path / "kept")
    yield package
    assert not package.exists()
    shutil.copytree(tmp_path / "kept", package)


@pytest.fixture
def agent(installation: Path, home: Home) -> Iterator[Agent]:
    agent = Agent(installation / "replug-agent", home)
    yield agent
    assert agent.stop() == 2


def await_prepared(agent: Agent) -> None:
    """Wait until it has loaded by itself what it will need."""

    def is_prepared() -> bool:
        return '"release": "0' in agent.run(REPLUG, "status", "--json").out

    eventually(is_prepared, "what the agent needs is loaded", 20)


def test_an_agent_goes_on_with_what_it_has_loaded(agent: Agent, package: Path, home: Home) -> None:
    token = Token(home)
    token.add("p256")
    assert agent.ssh_add("-s", token.module, typing=[(PIN_PROMPT, token.pin)]).status == 0, agent.log
    for name in ("one", "other"):
        key = home.folder / name
        assert home.run("ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", key).status == 0
        assert agent.ssh_add("-q", key) == Done(0, "", ""), agent.log

    shutil.rmtree(package)

    assert agent.ssh_add("-q", "-d", home.folder / "other.pub").status == 0
    for pid in agent.children():
        os.kill(pid, signal.SIGKILL)
    for public in ("one.pub", "p256.pub"):
        assert agent.ssh_add("-T", home.folder / public) == Done(0, "", ""), agent.log


def test_what_was_not_loaded_is_not_taken_from_another_version(
    agent: Agent, package: Path, home: Home, tmp_path: Path
) -> None:
    """The other one here has other names for what it is told. What is refused says what to do."""
    key = home.folder / "one"
    assert home.run("ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", key).status == 0
    await_prepared(agent)
    shutil.rmtree(package)
    shutil.copytree(tmp_path / "kept", package)
    worker = package / "agent/keys/software_worker.py"
    worker.write_text(worker.read_text().replace('header["new"]', 'header["another"]'))

    assert agent.ssh_add("-q", key).status == 1
    assert "replug was removed or replaced since the agent started; restart it" in agent.log
    shutil.rmtree(package)


def test_the_configuration_is_read_again_by_what_was_loaded(
    installation: Path, package: Path, home: Home
) -> None:
    """Though there was none when the agent was started."""
    (home.folder / ".config/replug/config.toml").unlink()
    agent = Agent(installation / "replug-agent", home)
    try:
        await_prepared(agent)
        shutil.rmtree(package)
        home.configure('forget_pin_on = ["suspend"]')
        assert agent.run(REPLUG, "reload").status == 0, agent.log
    finally:
        assert agent.stop() == 2
