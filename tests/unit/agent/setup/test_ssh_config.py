"""Where ssh's configuration sends ssh, and what setup says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from replug.agent.setup.rivals import leads_elsewhere
from replug.agent.setup.ssh_config import IdentityAgent, identity_agents

OURS = "/run/user/7/replug/agent.sock"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GNUPGHOME", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Include more\nHost here\n  IdentityAgent SSH_AUTH_SOCK\n")
    return tmp_path


def test_every_line_with_its_place(home: Path) -> None:
    (home / ".ssh" / "more").write_text('Host a *.b\n\tidentityagent="~/other.sock"\n')
    folder = home / ".ssh"
    assert list(identity_agents(folder / "config")) == [
        IdentityAgent(f"{folder}/more:2", "a *.b", "~/other.sock"),
        IdentityAgent(f"{folder}/config:3", "here", "SSH_AUTH_SOCK"),
    ]


def test_a_file_that_includes_itself_ends(home: Path) -> None:
    (home / ".ssh" / "more").write_text("Include more\nIdentityAgent none\n")
    assert {line.value for line in identity_agents(home / ".ssh" / "config")} == {"none", "SSH_AUTH_SOCK"}


def test_files_that_include_each_other_more_than_once_end(home: Path) -> None:
    (home / ".ssh" / "more").write_text("IdentityAgent none\nInclude more more\n")
    assert len(list(identity_agents(home / ".ssh" / "config"))) <= 256


def test_setup_sees_what_is_included(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's own sockets are no others."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    (home / "replug").mkdir()
    (home / "replug/config.toml").write_text('[[socket]]\npath = "~/dev.sock"\nkeys = "*"\n')
    (home / ".ssh" / "more").write_text("IdentityAgent ~/other.sock\nIdentityAgent ~/dev.sock\n")
    assert list(leads_elsewhere(OURS)) == [
        f"{home}/.ssh/more:1 makes ssh use ~/other.sock: IdentityAgent overrides SSH_AUTH_SOCK"
    ]


@pytest.mark.parametrize(
    "value", ["SSH_AUTH_SOCK", "$SSH_AUTH_SOCK", "${XDG_RUNTIME_DIR}/replug/agent.sock", OURS]
)
def test_setup_knows_its_own_socket(home: Path, value: str) -> None:
    (home / ".ssh" / "more").write_text(f"IdentityAgent {value}\n")
    assert list(leads_elsewhere(OURS)) == []
