"""The configuration file: TOML in the user's configuration folder, all of it optional."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from replug.agent.config.model import Config, ConfigError, Problem

if TYPE_CHECKING:
    from replug.agent.config.reader import Reading

_LARGEST = 128 * 1024  # bytes


def config_path() -> Path:
    """The path of the file: `~/.config/replug/config.toml`, or under $XDG_CONFIG_HOME."""
    import platformdirs

    return platformdirs.user_config_path("replug") / "config.toml"


def load_config(path: Path, modules: tuple[str, ...] = Config.modules) -> Config:
    """The configuration in `path`, or the defaults if there is no such file; ConfigError.

    `modules` are those to serve unless the file names any. The file is not read if other users can change it:
    it names programs to run and where PINs are.
    """
    try:
        reading = read_file(path)
    except FileNotFoundError:
        return Config(modules=modules)
    if reading.problems:
        raise ConfigError(path, reading.problems)
    named = ("modules",) in reading.lines
    return reading.config if named else replace(reading.config, modules=modules)


def read_file(path: Path) -> Reading:
    """Read `path` and find the errors in it; FileNotFoundError, ConfigError if it cannot be read."""
    try:
        path.lstat()
    except NotADirectoryError as error:
        raise FileNotFoundError(path) from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(path, [Problem(None, error.strerror or str(error))]) from error
    # Imported only if there is a file: this slows the start.
    from replug.agent.config.reader import read_config
    from replug.token.trusted_file import UntrustedFileError, read_trusted

    try:
        text = read_trusted(path, largest=_LARGEST).decode("utf-8")
    except UntrustedFileError as error:
        raise ConfigError(path, [Problem(None, str(error))], error.fix) from error
    except OSError as error:
        raise ConfigError(path, [Problem(None, error.strerror or str(error))]) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(path, [Problem(line, "is not UTF-8")]) from error
    return read_config(text)
