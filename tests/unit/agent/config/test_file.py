"""The configuration file: where it is, whose it may be, and how its problems are told."""

from __future__ import annotations

import grp
import os
import subprocess
import sys
from pathlib import Path

import pytest

from replug.agent.config.file import config_path, load_config
from replug.agent.config.model import Config, ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def write(file: Path, content: str | bytes) -> None:
    """Only its user may change it, whatever the umask."""
    file.touch(mode=0o600)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def refusal(file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    return str(caught.value)


def test_without_a_file_there_are_defaults(file: Path) -> None:
    assert load_config(file) == Config()
    (file.parent / "a file").touch()
    assert load_config(file.parent / "a file/config.toml") == Config()


def test_without_a_file_nothing_is_loaded_to_read_it(file: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from replug.agent.config.file import load_config\n"
        "load_config(Path(sys.argv[1]))\n"
        "slow = {'tomllib', 'difflib', 'replug.agent.config.reader', 'replug.token.names.uri'}\n"
        "print(*slow & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_what_is_set_holds(file: Path) -> None:
    write(file, 'touch_timeout = "1m"\n')
    assert load_config(file) == Config(touch_timeout=60)


def test_problems_are_told_as_compilers_do(file: Path) -> None:
    write(file, '\nworkers = 0\ntouch_timout = "1m"\n')
    assert refusal(file).splitlines() == [
        f"{file}:2: workers must be a whole number from 1 to 64, without quotes",
        f"{file}:3: unknown key 'touch_timout'; did you mean \"touch_timeout\"?",
    ]


def test_a_file_that_is_none(file: Path) -> None:
    file.mkdir()
    assert refusal(file) == f"{file}: is not a regular file"


def test_a_file_that_is_not_text(file: Path) -> None:
    write(file, b'workers = 1\ntouch_timeout = "\xff"')
    assert refusal(file) == f"{file}:2: is not UTF-8"


def test_a_file_that_is_too_large(file: Path) -> None:
    write(file, b"#" * (128 * 1024 + 1))
    assert refusal(file) == f"{file}: is longer than 131072 bytes"


@pytest.mark.parametrize(("mode", "bits"), [(0o664, "0664"), (0o646, "0646"), (0o777, "0777")])
def test_a_file_that_others_can_change(
    file: Path, mode: int, bits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group(("staff", "x", gid, ["you", "other"])))
    file.touch()
    file.chmod(mode)
    assert refusal(file) == f"{file}: can be changed by other users (mode {bits}); chmod go-w {file}"
    file.chmod(mode & ~0o022)
    assert load_config(file) == Config()


def test_a_folder_that_others_can_change(tmp_path: Path) -> None:
    folder = tmp_path / "replug"
    folder.mkdir(mode=0o700)
    (folder / "config.toml").touch(mode=0o600)
    folder.chmod(0o777)
    file = folder / "config.toml"
    assert refusal(file) == f"{file}: its folder {folder} can be changed by other users; chmod go-w {folder}"


def test_a_link_is_followed_to_the_file_that_counts(tmp_path: Path, file: Path) -> None:
    """Many keep such files in one folder elsewhere and link to them."""
    (tmp_path / "dotfiles").mkdir(mode=0o700)
    there = tmp_path / "dotfiles/replug.toml"
    write(there, "workers = 3")
    file.symlink_to(there)
    assert load_config(file).workers == 3
    (tmp_path / "dotfiles").chmod(0o777)
    assert "dotfiles can be changed by other users" in refusal(file)
    there.unlink()
    assert refusal(file) == f"{file}: No such file or directory"


def test_the_folder_of_a_link_counts_too(tmp_path: Path) -> None:
    (tmp_path / "replug").mkdir(mode=0o700)
    file = tmp_path / "replug/config.toml"
    file.symlink_to(tmp_path / "mine.toml")
    write(tmp_path / "mine.toml", "workers = 3")
    assert load_config(file).workers == 3
    file.parent.chmod(0o777)
    assert f"its folder {file.parent} can be changed by other users" in refusal(file)


def test_a_folder_that_may_not_be_entered(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "lstat", denied)
    assert refusal(file) == f"{file}: Permission denied"


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert config_path() == tmp_path / ".config/replug/config.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    assert config_path() == tmp_path / "elsewhere/replug/config.toml"
