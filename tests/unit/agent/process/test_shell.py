"""The lines for a shell to evaluate."""

from __future__ import annotations

import pytest

from replug.agent.process import shell


def test_a_daemons_lines() -> None:
    assert shell.daemon_lines("/tmp/a.1", 42, csh=False) == (
        "SSH_AUTH_SOCK=/tmp/a.1; export SSH_AUTH_SOCK;\n"
        "SSH_AGENT_PID=42; export SSH_AGENT_PID;\n"
        "echo Agent pid 42;\n"
    )
    assert shell.daemon_lines("/tmp/a.1", 42, csh=True) == (
        "setenv SSH_AUTH_SOCK /tmp/a.1;\nsetenv SSH_AGENT_PID 42;\necho Agent pid 42;\n"
    )


def test_a_foreground_agents_lines() -> None:
    assert shell.foreground_lines("/tmp/a b", 42, csh=False) == (
        'SSH_AUTH_SOCK="/tmp/a b"; export SSH_AUTH_SOCK;\necho Agent pid 42;\n'
    )
    assert shell.foreground_lines("/tmp/a b", 42, csh=True) == (
        'setenv SSH_AUTH_SOCK "/tmp/a b";\necho Agent pid 42;\n'
    )


def test_a_killed_agents_lines() -> None:
    assert shell.killed_lines(42, csh=False) == (
        "unset SSH_AUTH_SOCK;\nunset SSH_AGENT_PID;\necho Agent pid 42 killed;\n"
    )
    assert shell.killed_lines(42, csh=True) == (
        "unsetenv SSH_AUTH_SOCK;\nunsetenv SSH_AGENT_PID;\necho Agent pid 42 killed;\n"
    )


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("/tmp/a", "/tmp/a"),
        ("a b", '"a b"'),
        ("a\tb", '"a\tb"'),
        ("a'b", "a\\'b"),
        ('a"b', 'a\\"b'),
        ("a\\b", "a\\\\b"),
        ("a 'b", '"a \\\'b"'),
        ("a$b;c", "a$b;c"),
        ("a\nb", "a\nb"),
    ],
)
def test_quoting(word: str, quoted: str) -> None:
    assert shell.quoted(word) == quoted
