"""The line of the configuration by which another agent is kept, and what is left when it is taken out."""

from __future__ import annotations

from pathlib import Path

import pytest

from replug.agent.config.reader import read_config
from replug.agent.setup import kept_agent

RUNTIME = "/run/user/7"
SOCKET, OTHER = f"{RUNTIME}/gcr/ssh", "/home/a/other"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration file, in a folder that is not there yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", RUNTIME)
    return tmp_path / "config/replug/config.toml"


def write(path: Path, text: str, mode: int = 0o640) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


@pytest.mark.parametrize("text", [None, "", "workers = 2\n[[token]]\nuri = 'pkcs11:token=a'\n", "# no end"])
def test_everything_is_as_before(text: str | None, path: Path) -> None:
    if text is not None:
        write(path, text)
    kept = kept_agent.keeping([SOCKET, OTHER], RUNTIME)
    assert not kept_agent.is_as_written(kept)
    kept_agent.write(kept)
    reading = read_config(path.read_text())
    assert (reading.problems, reading.config.upstreams) == ([], (SOCKET, OTHER))
    assert kept_agent.sockets_behind() == (SOCKET, OTHER)
    assert kept_agent.is_as_written(kept)
    kept_agent.take_out(kept)
    assert (path.read_text() if path.exists() else None) == text
    assert text is None or path.stat().st_mode & 0o777 == 0o640


def test_what_was_written_meanwhile_stays(path: Path) -> None:
    kept = kept_agent.keeping([SOCKET, OTHER], RUNTIME)
    kept_agent.write(kept)
    path.write_text(f"{path.read_text()}workers = 2\n")
    kept_agent.take_out(kept)
    assert path.read_text() == "workers = 2\n"


def test_a_file_that_a_link_leads_to_is_written_where_it_is(path: Path, tmp_path: Path) -> None:
    write(path, "")
    path.unlink()
    (tmp_path / "dotfiles").write_text("workers = 2\n")
    path.symlink_to(tmp_path / "dotfiles")
    kept_agent.write(kept_agent.keeping([SOCKET, OTHER], RUNTIME))
    assert path.is_symlink()
    assert (tmp_path / "dotfiles").read_text().endswith("\n\nworkers = 2\n")


@pytest.mark.parametrize("text", ['upstreams = ["/a"]', "upstreams = []", "upstreams ="])
def test_a_file_that_says_something_of_them_is_the_users(text: str, path: Path) -> None:
    write(path, text)
    assert kept_agent.names_others(path)


def test_what_is_there_at_every_login_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    runtime = tmp_path / "run"

    def there(path: str) -> str:
        socket = tmp_path / path
        socket.parent.mkdir(parents=True, exist_ok=True)
        socket.touch()
        return str(socket)

    def kept(used: str, *units: str) -> list[str]:
        return kept_agent.that_can_be_kept(used, units, str(runtime))

    temporary, keyring, gcr = there("ssh-x/agent.1"), there("run/keyring/ssh"), there("run/gcr/ssh")
    own, openssh, gpg = there("home/a"), there("run/openssh_agent"), there("run/gnupg/S.gpg-agent.ssh")
    assert (kept(own), kept(gcr)) == ([own], [gcr])
    for used in (temporary, keyring, openssh, str(runtime / "gone"), ""):
        assert kept(used) == []
    assert kept(keyring, "gcr-ssh-agent.socket") == [gcr]
    # Debian 12 has no socket for it.
    assert kept(openssh, "ssh-agent.service") == []
    assert kept(openssh, "ssh-agent.socket", "gpg-agent-ssh.socket") == [openssh, gpg]
