"""Reading the configuration again while the agent runs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from doubles.agent_bench import AgentBench
from doubles.stand_ins import Key, StandInToken, run

from replug.agent import reload as reload_module
from replug.agent.config.model import Config, ConfigError, Problem
from replug.agent.config.reader import read_config
from replug.agent.reload import Reloader, changes_needing_restart

KEY = Key("login")


class File:
    """The configuration file: what reading it gives, and how often it was read."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.broken = False
        self.read = 0
        self.go_on = threading.Event()
        self.go_on.set()

    def load(self, path: Path, modules: tuple[str, ...]) -> Config:
        self.read += 1
        said = self.config
        assert self.go_on.wait(10)
        if self.broken:
            raise ConfigError(path, [Problem(1, "nonsense")])
        return said


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> File:
    file = File(Config(modules=(str(tmp_path / "module.so"),)))
    monkeypatch.setattr(reload_module, "load_config", file.load)
    return file


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AgentBench:
    return AgentBench(monkeypatch, tmp_path, StandInToken(KEY))


async def nothing_follows() -> None:
    pass


def test_what_the_file_says_now_holds(agent: AgentBench, file: File) -> None:
    async def main() -> None:
        changes: list[Config] = []

        async def follow() -> None:
            changes.append(agent.keyring.settings.config)

        reloader = Reloader(agent.keyring, follow)
        file.config = Config(modules=file.config.modules, allowed_modules="*")
        reloader.reload()
        await reloader.finished()
        assert agent.keyring.settings.config is file.config
        assert changes == [file.config]
        assert [module.path for module in agent.keyring.modules()] == [str(agent.module)]

    run(main())


def test_a_file_that_makes_no_sense_changes_nothing(
    agent: AgentBench, file: File, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        before, file.broken = agent.keyring.settings.options, True
        reloader = Reloader(agent.keyring, nothing_follows)
        reloader.reload()
        await reloader.finished()
        assert agent.keyring.settings.options is before
        assert "nonsense" in caplog.text
        file.broken = False
        reloader.reload()
        await reloader.finished()
        assert agent.keyring.settings.config is file.config

    run(main())


def test_of_many_signals_the_last_one_counts(agent: AgentBench, file: File) -> None:
    """And there is no race: a slow reading of an old file does not undo that of the new one."""

    async def main() -> None:
        reloader = Reloader(agent.keyring, nothing_follows)
        file.go_on.clear()
        reloader.reload()
        reloader.reload()
        old, file.config = file.config, Config(modules=(), wait_for_token=7)
        for _ in range(5):
            reloader.reload()
        file.go_on.set()
        await reloader.finished()
        assert agent.keyring.settings.config is file.config is not old
        assert file.read <= 2

    run(main())


def test_a_file_system_that_does_not_answer(
    agent: AgentBench, file: File, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        monkeypatch.setattr(reload_module, "_PATIENCE", 0.01)
        reloader = Reloader(agent.keyring, nothing_follows)
        file.go_on.clear()
        reloader.reload()
        await reloader.finished()
        assert "the file system does not answer" in caplog.text
        file.go_on.set()

    run(main())


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("", "", []),
        (
            "",
            'pin_idle_time = "1h"\nforget_pin_on = ["removal"]\nallowed_modules = "/*"\nwait_for_token = "9"',
            [],
        ),
        ("", 'workers = 2\ntouch_timeout = "9s"', ["touch_timeout", "workers"]),
        ('prompt = "askpass"', "", ["prompt"]),
        ("", '[[token]]\nuri = "pkcs11:token=a"\nconfirm = true', []),
        ("", '[[token]]\nuri = "pkcs11:token=a"\nworkers = 2', ["[[token]] workers"]),
        (
            '[[token]]\nuri = "pkcs11:token=a"\nmodule = "/a"',
            '[[token]]\nuri = "pkcs11:token=a"\nmodule = "/b"',
            [],
        ),
    ],
)
def test_what_a_running_agent_does_not_take_over(old: str, new: str, names: list[str]) -> None:
    before, after = read_config(old), read_config(new)
    assert (before.problems, after.problems) == ([], [])
    assert changes_needing_restart(before.config, after.config) == names


def test_a_refused_file_is_told_to_the_one_who_asks_until_it_is_accepted(
    agent: AgentBench, file: File, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        reloader = Reloader(agent.keyring, nothing_follows)
        file.broken = True
        assert "nonsense" in (await reload_module.reload(reloader))["refused"]
        settings = agent.keyring.settings
        assert "nonsense" in settings.refused
        assert "the settings read before remain in force" in caplog.text
        first, before = settings.refused_since, settings.read_at
        assert first is not None
        assert before <= first
        answer = await reload_module.reload(reloader)
        assert (answer["read"], settings.refused_since) == (before, first)
        file.broken = False
        assert (await reload_module.reload(reloader))["refused"] == ""
        assert (settings.refused, settings.refused_since) == ("", None)
        assert settings.read_at >= first

    run(main())
