"""What git wants, by the command line of its ssh."""

from __future__ import annotations

import pytest

from replug.agent.key_rules.repositories import asked_repository, names_repository, split_address


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("git-upload-pack 'work-org/repo.git'", "work-org/repo.git"),
        ("git-receive-pack '/work-org/repo.git'", "/work-org/repo.git"),
        ("git-upload-archive '~me/repo'", "~me/repo"),
        ("git upload-pack '/a/b'", "/a/b"),
        ("/usr/local/bin/git-upload-pack '/a/b'", "/a/b"),
        ("git-lfs-authenticate work-org/repo.git download", "work-org/repo.git"),
        (r"git-upload-pack 'it'\''s'\!'", ""),
        (r"git-upload-pack 'it'\''s '\!''", "it's !"),
        ("git-upload-pack", ""),
        ("git-shell -c x", ""),
        ("git status", ""),
        ("rsync --server . work-org/repo.git", ""),
    ],
)
def test_the_path_is_what_the_host_is_asked_for(command: str, path: str) -> None:
    ssh = ["ssh", "-o", "SendEnv=GIT_PROTOCOL", "-p", "22", "git@git-host"]
    assert asked_repository([*ssh, command]) == path
    assert asked_repository([*ssh, *command.split(" ")]) == path


def test_no_command_is_no_repository() -> None:
    assert asked_repository([]) == asked_repository(["ssh", "git@host"]) == ""


@pytest.mark.parametrize(
    ("patterns", "path", "named"),
    [
        (("work-org/*",), "/work-org/repo.git", True),
        (("/work-org/*",), "work-org/repo.git", True),
        (("Work-Org/*",), "work-org/REPO", True),
        (("work-org/repo",), "work-org/repo.git", True),
        (("work-org/repo.git",), "work-org/repo.git", True),
        (("work-org/repo.git",), "work-org/repo", False),
        (("work-org/*",), "work-organisation/repo.git", False),
        (("work-org/*", "!work-org/dots"), "work-org/dots.git", False),
        (("!work-org/dots", "*"), "work-org/repo", True),
        (("*/repo",), "work-org/deep/repo", True),
        ((), "work-org/repo", False),
    ],
)
def test_patterns_name_paths(patterns: tuple[str, ...], path: str, named: bool) -> None:
    assert names_repository(patterns, path) is named


@pytest.mark.parametrize(
    ("address", "host", "path"),
    [
        ("git@host:work-org/a.git", "git@host", "work-org/a.git"),
        ("ssh://git@host:2222/work-org/a.git", "ssh://git@host:2222", "work-org/a.git"),
        ("ssh://git@host:2222", "ssh://git@host:2222", ""),
        ("git@host", "git@host", ""),
        ("[host]:2222", "[host]:2222", ""),
        ("fe80::1", "fe80::1", ""),
        ("work-org/a.git", "work-org/a.git", ""),
        ("/work-org/a:b.git", "/work-org/a:b.git", ""),
    ],
)
def test_an_address_names_a_host_and_a_repository(address: str, host: str, path: str) -> None:
    assert split_address(address) == (host, path)


def test_an_address_of_another_protocol_names_neither() -> None:
    with pytest.raises(ValueError, match="https:// is not ssh"):
        split_address("https://host/work-org/a.git")
