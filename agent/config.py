"""The configuration file: TOML in the user's configuration folder, all of it optional."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from replug.agent.duration import parse_duration
from replug.token.deadlines import Deadlines

_KEYS = ("operation_timeout", "touch_timeout", "keypad_timeout", "prompt_timeout", "wait_for_token")


class ConfigError(Exception):
    """The file cannot be read or says something that has no meaning; the text names file and key."""


@dataclass(frozen=True)
class Config:
    """What the file may set, with the defaults."""

    deadlines: Deadlines = field(default_factory=Deadlines)
    """`operation_timeout`, `touch_timeout` and `keypad_timeout`."""
    prompt_timeout: float = 120.0
    """How long a PIN prompt may stand unanswered, in seconds."""
    wait_for_token: float = 0.0
    """How long a request waits for a token that is out, in seconds; 0 refuses it at once."""


def config_path() -> Path:
    """Where the file is looked for: `~/.config/replug/config.toml`, or under $XDG_CONFIG_HOME."""
    return platformdirs.user_config_path("replug") / "config.toml"


def load_config(path: Path) -> Config:
    """The configuration in `path`, or the defaults if there is no such file; ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return Config()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    import tomllib

    try:
        return _config(tomllib.loads(text))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _config(values: Mapping[str, object]) -> Config:
    for key in values:
        if key not in _KEYS:
            raise ValueError(f"unknown key {key!r}; known are {', '.join(_KEYS)}")
    default = Config()

    def seconds(key: str, otherwise: float) -> float:
        return _duration(key, values[key]) if key in values else otherwise

    return Config(
        deadlines=Deadlines(
            operation=seconds("operation_timeout", default.deadlines.operation),
            touch=seconds("touch_timeout", default.deadlines.touch),
            keypad=seconds("keypad_timeout", default.deadlines.keypad),
        ),
        prompt_timeout=seconds("prompt_timeout", default.prompt_timeout),
        wait_for_token=seconds("wait_for_token", default.wait_for_token),
    )


def _duration(key: str, value: object) -> int:
    if not isinstance(value, str):
        raise ValueError(f'{key} is a time in quotes, such as "30s"')
    try:
        duration = parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    if duration == 0 and key != "wait_for_token":
        raise ValueError(f"{key} must not be zero")
    return duration
