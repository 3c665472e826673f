"""`replug config`, as the user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from replug.agent.commands.main import main
from replug.agent.config.model import Config
from replug.agent.config.reader import read_config
from replug.agent.config.text import example


class Shell:
    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = home / ".config/replug/config.toml"
        self._capsys = capsys

    def write(self, text: str) -> None:
        for folder in (self.file.parent.parent, self.file.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        self.file.write_text(text)
        self.file.chmod(0o600)

    def replug(self, *arguments: str | Path) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        return status, *self._capsys.readouterr()


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)  # no agent is needed
    return Shell(tmp_path, capsys)


def test_nothing_is_wrong(shell: Shell) -> None:
    shell.write('touch_timeout = "1m"\n')
    assert shell.replug("config", "check") == (0, f"{shell.file}: no problems found\n", "")


def test_all_that_is_wrong(shell: Shell) -> None:
    shell.write('touch_timeot = "1m"\n\nworkers = 0\n')
    assert shell.replug("config", "check") == (
        1,
        "",
        f"{shell.file}:1: unknown key 'touch_timeot'; did you mean \"touch_timeout\"?\n"
        f"{shell.file}:3: workers must be a whole number from 1 to 64, without quotes\n",
    )
    status, out, err = shell.replug("config", "show")
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 2


def test_a_file_that_others_can_change(shell: Shell) -> None:
    shell.write("")
    shell.file.chmod(0o666)
    for action in ("check", "show"):
        status, out, err = shell.replug("config", action)
        assert (status, out) == (1, "")
        assert err == (f"{shell.file}: can be changed by other users (mode 0666); chmod go-w {shell.file}\n")


def test_without_a_file(shell: Shell) -> None:
    status, out, err = shell.replug("config", "check")
    assert (status, out, err) == (0, f"# {shell.file} does not exist: defaults apply\n", "")
    status, out, err = shell.replug("config", "show")
    assert (status, err) == (0, "")
    assert out.startswith(f"# {shell.file} does not exist: defaults apply\nmodules = ")
    assert read_config(out).config == Config()


def test_another_file(shell: Shell, tmp_path: Path) -> None:
    shell.write("nonsense")
    other = tmp_path / "other.toml"
    for action in ("check", "show"):
        status, out, err = shell.replug("config", action, other)
        assert (status, out, err) == (1, "", f"{other}: No such file or directory\n")
    other.write_text("workers = 3")
    other.chmod(0o600)
    assert shell.replug("config", "check", other)[0] == 0
    status, out, _ = shell.replug("config", "show", other)
    assert status == 0
    assert out.startswith(f"# {other}\n")
    assert read_config(out).config == Config(workers=3)


def test_the_example_is_a_file_to_begin_with(shell: Shell) -> None:
    status, out, err = shell.replug("config", "example")
    assert (status, out, err) == (0, example(), "")
    shell.write(out)
    assert shell.replug("config", "check")[0] == 0


def test_modules_that_are_not_there_or_not_allowed(shell: Shell, tmp_path: Path) -> None:
    module = tmp_path / "module.so"
    module.touch()
    shell.write(
        "modules = [\n"
        '  "auto", "pkcs11:token=a",\n'
        f'  "{module}",\n'
        f'  "pkcs11:?module-path={tmp_path}/missing.so",\n'
        "]\n"
        f'[[token]]\nuri = "pkcs11:token=b"\nmodule = "{tmp_path}"\n'
        f'[[token]]\nuri = "pkcs11:token=c?module-path={module}"\n'
    )
    not_allowed = f"{module} is not in allowed_modules (/usr/lib*/*,/usr/local/lib*/*)"
    assert shell.replug("config", "check") == (
        1,
        "",
        f"{shell.file}:3: modules: {not_allowed}\n"
        f"{shell.file}:4: modules: {tmp_path}/missing.so does not exist\n"
        f"{shell.file}:8: module: {tmp_path} is not a file\n"
        f"{shell.file}:10: uri: {not_allowed}\n",
    )
    # Reading it does not look at them: they may be on a disk that comes later.
    assert shell.replug("config", "show")[0] == 0


def test_a_module_that_is_allowed(shell: Shell, tmp_path: Path) -> None:
    module = tmp_path / "module.so"
    module.touch()
    shell.write(f'modules = "{module}"\nallowed_modules = "{tmp_path}/*"\n')
    assert shell.replug("config", "check")[0] == 0


def test_programs_and_certificates_that_are_not_there(shell: Shell, tmp_path: Path) -> None:
    shell.write(
        f'certificates = ["{tmp_path}/*-cert.pub",\n"{tmp_path}/a-cert.pub"]\n'
        'pinentry_program = "pinentry-none"\n'
    )
    status, out, err = shell.replug("config", "check")
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        f"{shell.file}:2: certificates: {tmp_path}/a-cert.pub does not exist",
        f"{shell.file}:3: pinentry_program: there is no program pinentry-none",
    ]
    (tmp_path / "a-cert.pub").touch()
    shell.write(shell.file.read_text().replace("pinentry-none", "/bin/sh"))
    assert shell.replug("config", "check")[0] == 0


def test_a_pin_file_that_will_not_be_read(shell: Shell, tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_bytes(b"123456\n")
    pin.chmod(0o640)
    shell.write(f'[[token]]\nuri = "pkcs11:token=a"\npin_source = "file:{pin}"\n')
    status, out, err = shell.replug("config", "check")
    assert (status, out) == (1, "")
    assert err == (
        f"{shell.file}:3: pin_source: {pin}: can be read or changed by other users (mode 0640);"
        f" chmod go-rwx {pin}\n"
    )
    pin.chmod(0o600)
    status, out, err = shell.replug("config", "check")
    assert (status, err) == (0, "")
    assert "123456" not in out


def test_a_credential_is_there_for_the_service_only(shell: Shell) -> None:
    shell.write('[[token]]\nuri = "pkcs11:token=a"\npin_source = "credential:hsm.pin"\n')
    assert shell.replug("config", "check")[0] == 0
