"""What a host may be called, by the command line of a client."""

from __future__ import annotations

import os

import pytest
from doubles.stand_ins import run

from replug.agent.clients.command_line import command_line
from replug.agent.clients.named_hosts import possible_names


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("ssh server", ["server"]),
        ("ssh root@server", ["server"]),
        ("ssh ssh://root@server:2222/", ["server", "[server]:2222"]),
        ("ssh -p 2222 server", ["2222", "server", "[2222]:2222", "[server]:2222"]),
        ("ssh -p2222 server", ["server", "[server]:2222"]),
        ("ssh -o Port=2222 ::1", ["::1", "[::1]:2222"]),
        ("ssh -oport=2222 server", ["server", "[server]:2222"]),
        ("ssh -W [inner]:22 jump", ["[inner]:22", "jump"]),
        ("ssh", []),
    ],
)
def test_names_on_the_command_line(words: str, names: list[str]) -> None:
    assert possible_names(words.split(), []) == names


def test_names_of_rules_are_looked_for_on_that_port_too() -> None:
    assert possible_names([], ["a", "[b]:7"]) == ["a", "[b]:7"]
    assert possible_names(["ssh", "-p7", "alias"], ["a", "[b]:7"])[3:] == ["[alias]:7", "[a]:7"]


def test_the_command_line_of_a_process() -> None:
    words = run(command_line(os.getpid()))
    assert words is not None
    assert any("pytest" in word or "python" in word for word in words)
    assert run(command_line(0)) is None
