"""The configuration file: what it may say, and how it is told what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from replug.agent.config import Config, ConfigError, config_path, load_config
from replug.token.client import Deadlines


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_without_a_file_there_are_defaults(file: Path) -> None:
    assert load_config(file) == Config()


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_all_of_it_is_optional(file: Path, text: str) -> None:
    file.write_text(text)
    assert load_config(file) == Config()


def test_every_key(file: Path) -> None:
    file.write_text(
        'operation_timeout = "5s"\n'
        'touch_timeout = "1m"\n'
        'keypad_timeout = "90"\n'
        'prompt_timeout = "1h"\n'
        'wait_for_token = "2m"\n'
    )
    assert load_config(file) == Config(
        deadlines=Deadlines(operation=5, touch=60, keypad=90), prompt_timeout=3600, wait_for_token=120
    )


def test_what_is_not_set_keeps_its_default(file: Path) -> None:
    file.write_text('touch_timeout = "1m"\n')
    config = load_config(file)
    assert config.deadlines.touch == 60
    assert config.deadlines.operation == Deadlines().operation
    assert config.prompt_timeout == Config().prompt_timeout


def test_waiting_for_a_token_may_be_switched_off(file: Path) -> None:
    file.write_text('wait_for_token = "0"\n')
    assert load_config(file).wait_for_token == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('touch = "1m"', "unknown key 'touch'; known are operation_timeout, "),
        ("[touch_timeout]", "touch_timeout is a time in quotes"),
        ("touch_timeout = 60", 'touch_timeout is a time in quotes, such as "30s"'),
        ("touch_timeout = true", "touch_timeout is a time in quotes"),
        ('touch_timeout = "soon"', "touch_timeout: not a duration: 'soon'"),
        ('touch_timeout = "-1"', "touch_timeout: not a duration"),
        ('touch_timeout = "0"', "touch_timeout must not be zero"),
        ('touch_timeout = "0.5"', "touch_timeout must not be zero"),
        ('touch_timeout = "1m', "(at "),
        ('touch_timeout = "1m"\ntouch_timeout = "2m"', "(at "),
    ],
)
def test_what_has_no_meaning_is_refused_with_file_and_reason(file: Path, text: str, reason: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert reason in str(caught.value)


def test_a_file_that_cannot_be_read(file: Path) -> None:
    file.mkdir()
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(file)


def test_a_file_that_is_not_text(file: Path) -> None:
    file.write_bytes(b'touch_timeout = "\xff"')
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value).startswith(f"{file}: ")


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert config_path() == tmp_path / ".config/replug/config.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    assert config_path() == tmp_path / "elsewhere/replug/config.toml"
